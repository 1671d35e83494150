"""`frs export`: a job's student as files for a device."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli import render
from cli.arguments import JobId, finite
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, show, stdout
from cli.watching import follow
from frs_client import Client, Json, ServiceError
from frs_client.requests import path_of

app = typer.Typer()
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", help="onnx, onnx-int8 or onnx-no-nms; repeat for several. Default: the first two."),
]


@app.command()
def export(
    id: JobId,
    formats: Formats = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            callback=finite, help="Largest loss of mAP, in points, that passes. Default: 0.05, and 0.5 for onnx-int8."
        ),
    ] = None,
    fixed: Annotated[bool, typer.Option(help="Give the network one input size instead of the scaled image's.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the files and download them.")] = True,
    output: Annotated[Path | None, typer.Option(help="Folder to write into. Default: exports/ID.")] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Export a job's student as ONNX, fp32 and INT8, and compare the files with it.

    OUTPUT receives the files, export.json and frs_runner.py, which runs them: `python frs_runner.py student.onnx
    image.jpg --save out.jpg`. Exit status 1: a file loses too much mAP, or the
    student finds no objects that it could lose.
    """
    settings: Json = {"input_size": "fixed" if fixed else "dynamic"}
    settings |= {"formats": formats} if formats else {}
    settings |= {} if max_drop is None else {"max_drop": max_drop}

    def start(client: Client) -> Json:
        job = client.post(path_of("jobs", id, "exports"), settings)
        folder = output or Path("exports", id)  # one for each student: the names of their files are the same
        return finish_export(client, id, job, folder, None if json_ else stdout) if wait else job

    answer = call_service(data, start)
    if not wait:
        show(answer, render.job, json_)
        return
    show(answer, render.export, json_)
    raise typer.Exit(0 if answer["passed"] else 1)


def finish_export(client: Client, student_job_id: str, job: Json, output: Path, console: Console | None) -> Json:
    """Wait for the export, download its files and return it. Raises ServiceError if it failed."""
    job = follow(client, job["id"], console)
    if job["status"] != "succeeded":
        error = job["error"] or {"message": f"The export was {job['status']}.", "hint": ""}
        raise ServiceError(error["message"], error["hint"])
    client.jobs.pull_artifacts(job["id"], output, (".onnx", ".py", ".json"))
    exports = client.each(path_of("jobs", student_job_id, "exports"))
    return next(export for export in exports if export["job_id"] == job["id"]) | {"folder": str(output)}
