"""`frs audit`: who changed what. Needs an admin key."""

from itertools import islice
from typing import Annotated

import typer

from cli import render
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, render_rows, show
from frs_client import Client, Json

app = typer.Typer()


@app.command()
def audit(
    owner: Annotated[str | None, typer.Option(help="Only changes by keys of this owner.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action, e.g. job.cancel.")] = None,
    target: Annotated[str | None, typer.Option(help="Only changes of the object of this id.")] = None,
    since: Annotated[str | None, typer.Option(help="Only changes from this time on, e.g. 2026-11-24T12:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Only changes before this time.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of changes.")] = 50,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """List the changes that users requested, newest first. Needs an admin key."""
    filters = {"owner": owner, "action": action, "target": target, "since": since, "until": until}

    def read(client: Client) -> Json:
        return {"data": list(islice(client.each("/audit", **filters, limit=min(limit, 200)), limit))}

    show(call_service(data, read), render_rows(render.audit), json_)
