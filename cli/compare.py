"""`frs compare`: jobs side by side."""

from typing import Annotated

import typer

from cli import side_by_side
from cli.arguments import job_ids
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, show

app = typer.Typer()


@app.command()
def compare(
    ids: Annotated[list[str], typer.Argument(metavar="ID ID...", autocompletion=job_ids)],
    keys: Annotated[str | None, typer.Option(show_default="all", help="Metric keys, comma-separated.")] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Compare 2 to 16 jobs: spec differences, last metric values and evaluation results."""
    query = {"jobs": ",".join(ids), "keys": keys}
    show(call_service(data, lambda client: client.get("/compare", **query)), side_by_side.draw, json_)
