"""The workers, and the line before them."""

from typing import Annotated

import typer

from cli import render
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, rows, show

app = typer.Typer()


@app.command()
def queue(
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False
) -> None:
    """Which job is next, and what each waits for."""
    show(call_service(data, lambda client: client.get("/queue", limit=limit)), render.queue, json_)


@app.command()
def workers(data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """The workers that are there, their GPUs and what they run."""
    show(call_service(data, lambda client: client.get("/workers")), rows(render.workers), json_)
