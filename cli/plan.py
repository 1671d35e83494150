"""`frs plan`: check a job before it is posted."""

from typing import Annotated, Any

import typer
from rich.console import Group

from cli import render
from cli.arguments import Changes, SpecSource, load_spec
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, show, stderr
from frs.cli import plan_tables
from frs.preflight.estimate import Estimate
from frs_client import Client, Json, ServiceError
from frs_client.answers import parse
from frs_client.requests import path_of
from frs_client.sync.jobs import PROBE_POLL_SECONDS

app = typer.Typer()


@app.command()
def plan(
    spec: SpecSource,
    set_: Changes = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Estimate time and memory: a worker builds the job and runs a few steps.")
    ] = False,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Check a job without posting it. The exit status is 1 if a check fails."""

    def request(client: Client) -> Json:
        content = load_spec(client, spec, set_)
        return _probe(client, content) if probe else client.post("/jobs/plan", content)

    answer = call_service(data, request)
    show(answer, _render_estimate if probe else render.plan, json_)
    raise typer.Exit(0 if (answer["result"] if probe else answer)["ok"] else 1)


def _probe(client: Client, content: Json) -> Json:
    """Return the plan once a worker has probed it. Raises ServiceError if the probe fails."""
    plan_id = client.post("/jobs/plan", content, probe=True)["id"]
    with stderr.status("waiting for a worker") as status:
        for plan in client.poll(path_of("plans", plan_id), PROBE_POLL_SECONDS):
            if plan["status"] not in ("queued", "running"):
                break
            reason = plan["status_reason"]
            status.update(f"waiting: {reason['message']}" if reason else "building the job and running a few steps")
    if plan["status"] == "failed":
        error = plan["error"] or {"code": "internal_error", "message": "The worker reported no reason.", "hint": ""}
        raise ServiceError(f"{error['code']}: {error['message']}", error["hint"])
    return plan


def _render_estimate(plan: Json) -> Any:
    return Group(*plan_tables.tables(parse(Estimate, plan["result"])))
