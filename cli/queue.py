"""The workers, and the line before them."""

from typing import Annotated

import typer

from cli import render
from cli.terminal import HERE, AsJson, DataFolder, answer, rows, show

app = typer.Typer()


@app.command()
def queue(
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20, data: DataFolder = HERE, json_: AsJson = False
) -> None:
    """Which job is next, and what each waits for."""
    show(answer(data, lambda client: client.get("/queue", limit=limit)), render.queue, json_)


@app.command()
def workers(data: DataFolder = HERE, json_: AsJson = False) -> None:
    """The workers that are there, their GPUs and what they run."""
    show(answer(data, lambda client: client.get("/workers")), rows(render.workers), json_)
