"""`frs queue`, `frs workers` and `frs usage`."""

from typing import Annotated

import typer

from cli import render
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, render_rows, show

app = typer.Typer()


@app.command()
def queue(
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False
) -> None:
    """List queued jobs in the order they will run, with the reason each one waits."""
    show(call_service(data, lambda client: client.get("/queue", limit=limit)), render.queue, json_)


@app.command()
def workers(data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """List registered workers, their GPUs and their running jobs."""
    show(call_service(data, lambda client: client.get("/workers")), render_rows(render.workers), json_)


@app.command()
def usage(data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """List the disk space used by owner and kind of file, and the free space of the disks."""
    show(call_service(data, lambda client: client.get("/usage")), render.usage, json_)
