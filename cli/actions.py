"""Commands that change an existing job: stop, pause, resume, retry, edit, delete."""

from pathlib import Path
from typing import Annotated

import typer

from cli import render
from cli.arguments import JobId
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, show
from frs_client import Json
from frs_client.requests import path_of

app = typer.Typer()


@app.command()
def stop(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Stop a running job at its next step, then save and evaluate its student."""
    _post_action("stop", id, data, json_)


@app.command()
def pause(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Pause a job and free its slot; `frs resume` continues it."""
    _post_action("pause", id, data, json_)


@app.command()
def resume(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Requeue a paused, failed or cancelled job to continue from its last checkpoint."""
    _post_action("resume", id, data, json_)


@app.command()
def retry(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Requeue a failed or cancelled job to start from scratch; its previous results are deleted."""
    _post_action("retry", id, data, json_)


@app.command()
def edit(
    id: JobId,
    name: Annotated[str | None, typer.Option(help="New name; '' removes the name.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Tag to set; repeatable, replaces all tags. '' removes them.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option(min=-100, max=100, help="Jobs with a higher priority run first.")
    ] = None,
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
    show(call_service(data, lambda client: client.patch(path_of("jobs", id), body)), render.job, json_)


@app.command()
def delete(
    id: JobId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    keep_artifacts: Annotated[
        bool, typer.Option("--keep-artifacts", help="Keep checkpoints and other files on disk.")
    ] = False,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Delete a job that has ended, its baselines, seed runs and comparison, and their files."""
    files = "keep" if keep_artifacts else "delete"
    if not yes:
        typer.confirm(
            f"Delete job {id} and its derived jobs{'' if keep_artifacts else ', including their files'}?",
            abort=True,
            err=True,
        )
    call_service(data, lambda client: client.delete(path_of("jobs", id), artifacts=files))
    show({"deleted": id, "artifacts": files}, lambda answer: f"Deleted {answer['deleted']}.", json_)


def _post_action(action: str, id: str, data: Path, as_json: bool) -> None:
    show(call_service(data, lambda client: client.post(path_of("jobs", id, action))), render.job, as_json)
