"""What a job would be, before it is posted."""

import time
from typing import Annotated, Any

import typer
from rich.console import Group

from cli import render
from cli.arguments import Changes, SpecSource, content_of
from cli.client import Client, Json, ServiceError
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, problems, show
from frs.cli import plan_tables
from frs.preflight.estimate import Estimate

POLL_SECONDS = 0.5
app = typer.Typer()


@app.command()
def plan(
    spec: SpecSource,
    set_: Changes = None,
    probe: Annotated[bool, typer.Option("--probe", help="Let a worker build it and take a few steps.")] = False,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Check a job without posting it; with --probe, what it would cost. Ends with 1 where something prevents it."""

    def ask(client: Client) -> Json:
        content = content_of(client, spec, set_)
        return _probed(client, content) if probe else client.post("/jobs/plan", content)

    found = call_service(data, ask)
    show(found, _forecast if probe else render.plan, json_)
    raise typer.Exit(0 if (found["result"] if probe else found)["ok"] else 1)


def _probed(client: Client, content: Json) -> Json:
    """Raises ServiceError where the worker could not do it."""
    found = client.post("/jobs/plan?probe=true", content)
    with problems.status("waiting for a worker") as status:
        while found["status"] in ("queued", "running"):
            waits = found["status_reason"]
            status.update(f"waiting: {waits['message']}" if waits else "building, and taking a few steps")
            time.sleep(POLL_SECONDS)
            found = client.get(f"/plans/{found['id']}")
    if found["status"] == "failed":
        error = found["error"] or {"code": "internal_error", "message": "The worker does not say why.", "hint": ""}
        raise ServiceError(f"{error['code']}: {error['message']}", error["hint"])
    return found


def _forecast(found: Json) -> Any:
    return Group(*plan_tables.tables(Estimate.model_validate(found["result"])))
