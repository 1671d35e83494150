"""What is asked of a job after it was posted: stop, pause, resume, retry, set, delete."""

from pathlib import Path
from typing import Annotated

import typer

from cli import render
from cli.arguments import JobId
from cli.client import Json
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, show

app = typer.Typer()


@app.command()
def stop(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """End a running job at its next step, keep and evaluate what it has learned."""
    _act("stop", id, data, json_)


@app.command()
def pause(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Give a job's slot to others; `frs resume` goes on from where it was."""
    _act("pause", id, data, json_)


@app.command()
def resume(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Put a paused, failed or cancelled job back into the queue, to go on from its last checkpoint."""
    _act("resume", id, data, json_)


@app.command()
def retry(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Put a failed or cancelled job back into the queue, to begin from scratch: what it made is deleted."""
    _act("retry", id, data, json_)


@app.command("edit")
def change(
    id: JobId,
    name: Annotated[str | None, typer.Option(help="A new name; '' takes it away.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="All tags it is to have; '' alone for none.")] = None,
    priority: Annotated[int | None, typer.Option(min=-100, max=100, help="Jobs of a higher one are first.")] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Change a job's name, tags or priority."""
    body: Json = {}
    if name is not None:
        body["name"] = name or None
    if tag:
        body["tags"] = [text for text in tag if text]
    if priority is not None:
        body["priority"] = priority
    show(call_service(data, lambda client: client.patch(f"/jobs/{id}", body)), render.job, json_)


@app.command()
def delete(
    id: JobId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    keep_artifacts: Annotated[
        bool, typer.Option("--keep-artifacts", help="Leave checkpoints and other files where they are.")
    ] = False,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Forget a job that has ended, with its baselines, siblings and comparison, and delete their files."""
    files = "keep" if keep_artifacts else "delete"
    if not yes:
        typer.confirm(
            f"Delete job {id} and those it brought along{'' if keep_artifacts else ', files and all'}?",
            abort=True,
            err=True,
        )
    call_service(data, lambda client: client.delete(f"/jobs/{id}", artifacts=files))
    show({"deleted": id, "artifacts": files}, lambda told: f"Deleted {told['deleted']}.", json_)


def _act(action: str, id: str, data: Path, as_json: bool) -> None:
    show(call_service(data, lambda client: client.post(f"/jobs/{id}/{action}")), render.job, as_json)
