"""`frs distill`: from labelled images to a distilled student and its files for a device, with one command."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import render
from cli.arguments import Changes, find, finite, load_spec, recipe_names
from cli.exporting import finish_export
from cli.terminal import DEFAULT_DATA_DIR, DataFolder, exit_on_error, stdout
from cli.up import LOOPBACK, LocalService, free_port
from cli.uploading import upload_dataset
from cli.watching import follow, follow_group
from frs import names, spec_file
from frs_client import Client, Json, NoAnswer, ServiceError
from frs_client.requests import path_of

app = typer.Typer()
TEACHER_RECIPE, STUDENT_RECIPE = "edge_teacher", "edge_student"
EVALUATIONS = 4
"""Number of evaluations of a run whose number of epochs is given."""
_REFERENCES = {"dataset": "datasets", "unlabelled": "datasets", "detector": "detectors"}
"""Fields of a spec that name something, with the collection that has it."""
_ARCHIVE_SUFFIX = re.compile(r"\.(zip|tar|tar\.gz|tgz)$", re.IGNORECASE)


@dataclass(frozen=True)
class Size:
    """Width and height of images in pixels."""

    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Return the size of `320x240`, or of `320` for a square. Raises BadParameter for anything else."""
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.lower())
        if match is None:
            raise typer.BadParameter(f"`{text}` is not a size such as 320x240 or 320.")
        return cls(int(match[1]), int(match[2] or match[1]))


@app.command()
def distill(
    source: Annotated[
        str, typer.Argument(metavar="DATA", help="Folder or archive of labelled images, or the name of a data set.")
    ],
    name: Annotated[
        str | None, typer.Option(show_default="that of the folder or archive", help="Name of the data set.")
    ] = None,
    image_size: Annotated[
        Size | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            parser=Size.parse,
            show_default="the recipes', 320x320",
            help="Size at which the device will run the student, in pixels.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, show_default="the recipes', 24", help="Epochs of the teacher and of the student."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of students, each trained with and without the teacher; 3 show more.")
    ] = 1,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="ID_OR_NAME", help="Job or detector to use as teacher, instead of training one."),
    ] = None,
    student: Annotated[
        str, typer.Option(metavar="SPEC", help="Recipe or spec file of the student.", autocompletion=recipe_names)
    ] = STUDENT_RECIPE,
    set_: Changes = None,
    val_fraction: Annotated[
        float,
        typer.Option(callback=finite, help="Fraction of the images to validate on, if DATA has no validation split."),
    ] = 0.2,
    output: Annotated[Path, typer.Option(help="Folder to write the student and its ONNX files into.")] = Path(
        "students"
    ),
    data: DataFolder = DEFAULT_DATA_DIR,
) -> None:
    """Distil a student on your own images: train a teacher, then the student with and without it, and compare.

    Uploads DATA, prints the report, and writes the student and its ONNX files. Starts a service on the data folder if
    none answers, for as long as the command runs. The same command again continues instead of training twice.
    """
    with exit_on_error(), _running_service(data) as client:
        stdout.print("[bold]1. Data set[/]")
        dataset = _find_or_upload(client, source, name, val_fraction)
        stdout.print("[bold]2. Teacher[/]")
        schedule = _schedule(image_size, epochs)
        spec = _spec(client, student, dataset, schedule) | {"baseline": {"seeds": seeds} if seeds > 1 else True}
        spec = spec_file.apply_changes(spec, set_ or [])
        teacher_id = teacher or _post_once(client, _teacher_spec(client, spec, schedule))["id"]
        spec |= {"teacher": {"job" if teacher_id.startswith("job_") else "detector": teacher_id}}
        job = _post_once(client, spec)  # now, so that errors show before training
        if teacher is None:
            _require_success(follow(client, teacher_id, stdout))
        stdout.print("[bold]3. Student under the teacher, then alone[/]")
        _require_success(follow_group(client, job, stdout)[-1])
        stdout.print("[bold]4. Result[/]: COCO metrics on the validation images, in percent")
        stdout.print(render.report(client.get(path_of("jobs", job["id"], "report"))), highlight=False)
        stdout.print("[bold]5. Files[/]")
        folder = output / job["id"]
        client.jobs.pull(job["id"], folder)
        export = finish_export(client, job["id"], _export_once(client, job["id"]), folder, stdout)
        stdout.print(render.export(export), highlight=False)


@contextmanager
def _running_service(data: Path) -> Iterator[Client]:
    """Yield a client of the service that answers; if none does and none is named, start one on the data folder."""
    try:
        client = Client(data=data)
        client.health()
    except ServiceError as error:
        if os.environ.get("FRS_URL") or not _is_absent(error, data):
            raise
        with LocalService(data, LOOPBACK, free_port(), None, None) as service:
            stdout.print(f"Service started: {service.url}, key in {service.data / 'api-key'}", highlight=False)
            yield Client(data=data)
    else:
        yield client


def _is_absent(error: ServiceError, data: Path) -> bool:
    """Return whether the error says that no service runs on the data folder: it has no key, or nothing answers."""
    return isinstance(error, NoAnswer) or not (data / "api-key").exists()


def _find_or_upload(client: Client, source: str, name: str | None, val_fraction: float) -> str:
    """Return the name of the data set: an existing one, or the one uploaded from the file or folder `source`.

    Waits for its check. `POST /jobs` decides whether the issues that it has found are accepted.
    """
    path = Path(source)
    name = _normalise(name or _name_of(path)) if path.exists() else unicodedata.normalize("NFC", name or source)
    row = _own_dataset(client, name) if path.exists() else _named_dataset(client, name)
    kept = _checked(client, row) if row else None
    if kept and path.exists() and _is_replaceable(client, kept):
        kept = None
    row = kept or _checked(client, upload_dataset(client, name, path, val_fraction, stdout))
    stdout.print(render.dataset(row), highlight=False)
    if kept and path.exists():
        stdout.print(f"   The service has it already. `frs datasets delete {name}` or --name uploads {source} again.")
    return name


def _own_dataset(client: Client, name: str) -> Json | None:
    """Return the data set of this name that belongs to the key's owner; None if there is none."""
    return next((row for row in client.each("/datasets", own=True) if row["name"] == name), None)


def _named_dataset(client: Client, name: str) -> Json:
    """Return the data set of this name, for an admin also of another owner. Raises ServiceError if there is none."""
    if row := find(client, "datasets", name):
        return row
    known = ", ".join(row["name"] for row in client.each("/datasets")) or "none"
    raise ServiceError(f"{name} is neither a file or folder nor a data set.", f"Data sets: {known}.")


def _name_of(path: Path) -> str:
    """Return the name of a folder, or of a file without the suffix of an archive."""
    name = path.resolve().name
    return _ARCHIVE_SUFFIX.sub("", name) if path.is_file() else name


def _normalise(name: str) -> str:
    """Return the name in the form that the service stores. Raises ServiceError if no data set can have it."""
    try:
        return names.normalise(name)
    except ValueError as error:
        raise ServiceError(
            f"A data set cannot have the name `{name}`: it {error}.", "Set another one with --name."
        ) from None


def _checked(client: Client, row: Json) -> Json:
    """Return the row of a data set once its check has ended."""
    with stdout.status("Checking every file and every box"):
        return client.datasets.wait(row["id"]).model_dump(mode="json")


def _is_replaceable(client: Client, row: Json) -> bool:
    """Return whether an upload replaces the data set: its check has found issues, and no job uses it."""
    return row["status"] == "has_problems" and not client.get("/jobs", dataset=row["id"], limit=1)["data"]


def _schedule(image_size: Size | None, epochs: int | None) -> Json:
    """Return the fields of `schedule` that the options set."""
    size = {"image_size": [image_size.width, image_size.height]} if image_size else {}
    length = {"epochs": epochs, "evaluate_every": max(1, epochs // EVALUATIONS)} if epochs else {}
    return size | length


def _spec(client: Client, recipe: str, dataset: str, schedule: Json) -> Json:
    """Return the spec of a recipe or file for the data set, with the given fields of its schedule."""
    spec = load_spec(client, recipe, None)
    kind = "student" if spec.get("kind", "distill") == "distill" else "teacher"
    return spec | {
        "name": names.add_suffix(dataset, f" {kind}"),
        "dataset": dataset,
        "schedule": (spec.get("schedule") or {}) | schedule,
    }


def _teacher_spec(client: Client, student: Json, schedule: Json) -> Json:
    """Return the spec of the teacher to train, which leaves out the same invalid images as the student's."""
    accepted = {key: student[key] for key in ("max_invalid_fraction",) if key in student}
    return _spec(client, TEACHER_RECIPE, student["dataset"], schedule) | accepted


def _post_once(client: Client, spec: Json) -> Json:
    """Return the newest own job of this spec that has not failed, or post one."""
    resolve = cache(lambda kind, name: _id_of(client, kind, name))
    requested = _with_ids(spec, resolve)
    for job in client.each("/jobs", name=spec["name"], dataset=spec["dataset"], own=True):
        has_failed = job["status"] in ("failed", "cancelled")
        if not has_failed and _includes(_with_ids(job["spec"], resolve), requested):
            stdout.print(f"   {spec['name']}: {job['id']}, {job['status']} already", highlight=False)
            return job
    job = client.post("/jobs", spec)
    stdout.print(f"   {spec['name']}: {job['id']}", highlight=False)
    return job


def _export_once(client: Client, job_id: str) -> Json:
    """Return the job of the newest export that has not failed, or start one."""
    for export in client.each(path_of("jobs", job_id, "exports")):
        if export["status"] not in ("failed", "cancelled"):
            return client.get(path_of("jobs", export["job_id"]))
    return client.post(path_of("jobs", job_id, "exports"), {})


def _with_ids(spec: Any, resolve: Callable[[str, str], str]) -> Any:
    """Return the spec with ids instead of names: a stored spec of an admin has the ids of other owners' detectors."""
    if not isinstance(spec, dict):
        return spec
    return {
        field: resolve(_REFERENCES[field], value)
        if field in _REFERENCES and isinstance(value, str)
        else _with_ids(value, resolve)
        for field, value in spec.items()
    }


def _id_of(client: Client, kind: str, id_or_name: str) -> str:
    """Return the id of a detector or data set; of one that does not exist, what it was called."""
    row = find(client, kind, id_or_name)
    return id_or_name if row is None else str(row["id"])


def _includes(whole: Any, part: Any) -> bool:
    """Return whether `whole` has all fields of `part`, with the same values."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and _includes(whole[key], part[key]) for key in part)
    return bool(whole == part)


def _require_success(job: Json) -> None:
    """Raise ServiceError if a job did not succeed."""
    if job["status"] != "succeeded":
        error = job["error"] or {"message": "", "hint": f"`frs job {job['id']}` and `frs logs {job['id']}` show more."}
        message = f"Job {job['id']} ({job['name'] or job['kind']}) {job['status']}. {error['message']}".rstrip()
        raise ServiceError(message, error["hint"])
