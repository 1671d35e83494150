"""`frs quantize`: train a job's student further, so that its INT8 file loses less."""

from typing import Annotated

import typer
from pydantic import ValidationError

from cli import render
from cli.arguments import Changes, JobId
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, show, stdout
from cli.watching import follow
from frs import spec_file
from frs.spec import JobSpec, quantisation_of
from frs_client import Client, Json, ServiceError
from frs_client.requests import path_of

app = typer.Typer()


@app.command()
def quantize(
    id: JobId,
    set_: Changes = None,
    alone: Annotated[bool, typer.Option(help="Train without the job's teacher.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the job.")] = False,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Post a job that trains the student of a job for a few epochs, rounded as its INT8 file will be.

    It has the data set, image sizes, teacher and distillation of that job. Export its student afterwards: `frs export`.
    """

    def post(client: Client) -> Json:
        source = _read_spec(client.get(path_of("jobs", id)))
        source = source.model_copy(update={"teacher": None}) if alone else source
        spec = quantisation_of(source, id).model_dump(mode="json")
        job = client.post("/jobs", spec_file.apply_changes(spec, set_ or []))
        return follow(client, job["id"], None if json_ else stdout) if wait else job

    job = call_service(data, post)
    show(job, render.job, json_)
    raise typer.Exit(1 if wait and job["status"] != "succeeded" else 0)


def _read_spec(job: Json) -> JobSpec:
    """Return the stored spec of a job. Raises ServiceError if it is of a version that this one cannot read."""
    try:
        return JobSpec.model_validate(job["spec"])
    except ValidationError:
        message = f"spec_unreadable: Job {job['id']} was stored by another version of FRS; this one cannot read it."
        raise ServiceError(message, "Update FRS, or submit the job again.") from None
