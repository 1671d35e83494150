"""Run the distillation service, post and follow jobs, and download their results."""

import io
import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import (
    actions,
    audit,
    clean,
    compare,
    distilling,
    doctor,
    exporting,
    keys,
    models,
    plan,
    predicting,
    quantizing,
    render,
    sweeps,
    tensorboard,
    uploading,
)
from cli import demo as demo_run
from cli import queue as queue_commands
from cli import webhooks as webhook_commands
from cli.arguments import Changes, JobId, SpecSource, finite, job_ids, load_spec, recipe_names
from cli.metrics import read_metrics
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, fail, render_rows, show, stderr, stdout
from cli.up import LocalService
from cli.watching import follow, follow_group
from frs import __version__, spec_file
from frs.errors import FrsError
from frs.isolation.process import hide_memory
from frs_client import Client, Json, ServiceError
from frs_client.requests import path_of

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
datasets = typer.Typer(no_args_is_help=True, help="Manage data sets.")
detectors = typer.Typer(no_args_is_help=True, help="Manage detectors: teachers and published students.")
app.add_typer(datasets, name="datasets")
app.add_typer(detectors, name="detectors")
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.add_typer(webhook_commands.app, name="webhooks")
app.add_typer(sweeps.app)
for module in (
    distilling,
    *(actions, plan, compare, exporting, quantizing, predicting),
    *(queue_commands, audit, clean, doctor, tensorboard),
):
    app.add_typer(module.app)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"frs {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run the distillation service, post and follow jobs, and download their results."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names in a script that the terminal lacks


@app.command()
def up(
    data: Annotated[
        Path, typer.Option(envvar="FRS_DATA", help="Data folder: database, jobs, artifacts, logs.")
    ] = DEFAULT_DATA_DIR,
    port: int = 8000,
    host: str = "127.0.0.1",
    datasets: Annotated[Path | None, typer.Option(show_default="<data>/datasets", help="Data set folder.")] = None,
    models: Annotated[Path | None, typer.Option(show_default="<data>/models", help="Models folder.")] = None,
) -> None:
    """Run the API and a worker on this machine. Ctrl-C stops them; running jobs continue at the next start."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts background jobs with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        hide_memory()  # the environment may contain credentials of the object storage
        with LocalService(data, host, port, datasets, models) as service:
            stdout.print(f"frs is up at {service.url} (docs: {service.url}/docs)", highlight=False)
            stdout.print(
                f"key: {service.data / 'api-key'}   logs: {service.data / 'logs'}   Ctrl-C stops it", highlight=False
            )
            service.watch(lambda message: stderr.print(message, style="yellow", highlight=False, markup=False))
    except KeyboardInterrupt:
        stdout.print("frs has stopped.")
    except ServiceError as error:
        fail(error)


@app.command()
def demo(data: Annotated[Path, typer.Option(help="Data folder of the demo.")] = Path("demo")) -> None:
    """Distil a small detector on generated data and compare it with its baseline."""
    try:
        succeeded = demo_run.run(data, stdout)
    except (ServiceError, FrsError) as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(0 if succeeded else 1)


@app.command()
def submit(
    spec: SpecSource,
    set_: Changes = None,
    wait: Annotated[bool, typer.Option(help="Wait for the job, its baselines and its comparison.")] = False,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Post a job to the queue."""

    def post(client: Client) -> Json:
        job = client.post("/jobs", load_spec(client, spec, set_))
        jobs = follow_group(client, job, None if json_ else stdout) if wait else [job]
        return {"job": jobs[0], "failed": wait and jobs[-1]["status"] != "succeeded"}

    answer = call_service(data, post)
    show(answer["job"], render.job, json_)
    raise typer.Exit(1 if answer["failed"] else 0)


@app.command()
def jobs(
    status: str | None = None,
    name: Annotated[str | None, typer.Option(help="Only jobs whose name contains this text.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """List the newest jobs."""
    show(
        call_service(data, lambda client: client.get("/jobs", status=status, name=name, limit=limit)),
        render_rows(render.jobs),
        json_,
    )


@app.command()
def job(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Show a job: status, progress, and the reason it waits or ended."""
    show(call_service(data, lambda client: client.get(path_of("jobs", id))), render.job, json_)


@app.command()
def watch(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Follow a job with a progress bar. Ctrl-C stops watching, not the job."""

    def wait(client: Client) -> Json:
        client.get(path_of("jobs", id))  # fails at once without a service, for whose return `follow` waits
        return follow(client, id, None if json_ else stdout)

    job = call_service(data, wait)
    if json_:
        show(job, render.job, json_)
    raise typer.Exit(0 if job["status"] == "succeeded" else 1)


@app.command()
def metrics(
    id: JobId,
    keys: Annotated[str | None, typer.Option(show_default="all", help="Metric keys, comma-separated.")] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Show a job's metric series."""
    show(call_service(data, lambda client: read_metrics(client, id, keys)), render.metrics, json_)


@app.command()
def logs(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Print the log messages of a job's trainer."""
    lines = call_service(data, lambda client: {"data": list(client.each(path_of("jobs", id, "logs"), limit=200))})
    show(lines, lambda answer: "\n".join(f"{line['at'][:19]}Z {line['message']}" for line in answer["data"]), json_)


@app.command()
def report(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Show a job's report: teacher, baseline, student, gain with confidence interval, and the verdict."""
    answer = call_service(data, lambda client: client.get(path_of("jobs", id, "report")))
    show(answer, render.report, json_)


@app.command()
def cancel(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Cancel a job immediately; the jobs that need its student fail and are listed."""

    def cancel_job(client: Client) -> Json:
        dependents = client.get(path_of("jobs", id))["dependents"]
        return client.post(path_of("jobs", id, "cancel")) | {"dependents": dependents}

    show(call_service(data, cancel_job), render.job, json_)


@app.command()
def pull(
    id: JobId,
    output: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("students"),
    best: Annotated[bool, typer.Option(help="Pull the student with the highest mAP instead of the last.")] = False,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Download a job's student: weights (also as safetensors), config, report and report images."""
    files = call_service(
        data,
        lambda client: {"files": [str(file) for file in client.jobs.pull(id, output, "best" if best else "last")]},
    )
    show(files, lambda answer: "\n".join(answer["files"]), json_)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(autocompletion=recipe_names)] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """List the built-in specs, or print the one called NAME."""
    if name is None:
        show(call_service(data, lambda client: client.get("/recipes")), render_rows(render.recipes), json_)
    else:
        recipe = call_service(data, lambda client: client.get(path_of("recipes", name)))
        show(recipe, lambda answer: json.dumps(answer["spec"], indent=2), json_)


@datasets.command("add")
def add_dataset(
    name: str,
    train: Annotated[
        str | None,
        typer.Option(show_default="NAME/train", help="Training image folder, relative to the data set folder."),
    ] = None,
    train_annotations: Annotated[
        str | None, typer.Option(show_default="NAME/annotations/instances_train.json", help="Training annotations.")
    ] = None,
    val: Annotated[str | None, typer.Option(show_default="NAME/val", help="Validation image folder.")] = None,
    val_annotations: Annotated[
        str | None, typer.Option(show_default="NAME/annotations/instances_val.json", help="Validation annotations.")
    ] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Register a data set in the data set folder. Every file and box is checked."""
    splits = {
        "train": {
            "images": train or f"{name}/train",
            "annotations": train_annotations or f"{name}/annotations/instances_train.json",
        },
        "val": {
            "images": val or f"{name}/val",
            "annotations": val_annotations or f"{name}/annotations/instances_val.json",
        },
    }
    answer = call_service(data, lambda client: client.post("/datasets", {"name": name, **splits}))
    show(answer, render.dataset, json_)


@datasets.command("upload")
def upload_dataset(
    name: str,
    source: Annotated[Path, typer.Argument(metavar="ARCHIVE_OR_FOLDER", exists=True)],
    val_fraction: Annotated[
        float | None,
        typer.Option(
            callback=finite,
            help="Fraction of the training images to use for validation, if there is no validation split.",
        ),
    ] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Upload a data set in COCO, Pascal VOC or YOLO layout: a folder or a .zip, .tar or .tar.gz file.

    A data set of this name that has issues and that no job uses is replaced. docs/datasets.md shows the layouts.
    """
    bar = None if json_ else stdout
    answer = call_service(data, lambda client: uploading.upload_dataset(client, name, source, val_fraction, bar))
    show(answer, render.dataset, json_)


@datasets.command("list")
def list_datasets(data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """List registered data sets."""
    show(
        call_service(data, lambda client: {"data": list(client.each("/datasets"))}), render_rows(render.datasets), json_
    )


@datasets.command("check")
def check_dataset(id: str, data: DataFolder = DEFAULT_DATA_DIR) -> None:
    """Print the check report of a data set, given by id or name, as JSON."""
    show(call_service(data, lambda client: client.get(path_of("datasets", id, "check"))), str, as_json=True)


@datasets.command("delete")
def delete_dataset(
    id: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Remove a data set, given by id or name. Uploaded files are deleted, files of the data set folder are kept."""
    if not yes:
        typer.confirm(f"Delete data set {id}?", abort=True, err=True)
    call_service(data, lambda client: client.delete(path_of("datasets", id)))
    show({"deleted": id}, lambda answer: f"Deleted {answer['deleted']}.", json_)


@detectors.command("add")
def add_detector(
    name: str,
    job: Annotated[str | None, typer.Option(help="Publish the student of this job.", autocompletion=job_ids)] = None,
    description: Annotated[
        Path | None, typer.Option(help="YAML or JSON file that describes the detector (`config` or `architecture`).")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Weights file, relative to the models folder.")] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Register a detector: a job's student, or a description and a weights file."""
    body: Json = {"name": name, "job": job, "weights": weights}

    def post(client: Client) -> Json:
        body["description"] = spec_file.read(description) if description else None
        return client.post("/detectors", {key: value for key, value in body.items() if value is not None})

    show(call_service(data, post), lambda row: f"{row['id']}  {row['name']}", json_)


@detectors.command("upload")
def upload_detector(
    name: str,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="PyTorch or safetensors file.")],
    config: Annotated[str | None, typer.Option(help="mmdet config, e.g. mmdet::gfl/gfl_r50_fpn_1x_coco.py.")] = None,
    architecture: Annotated[str | None, typer.Option(help="Architecture, e.g. gfl, instead of --config.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Field of the description: backbone.depth=18; repeatable."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names, comma-separated, if the file does not contain them.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until a worker has imported the file.")] = True,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Upload a detector's weights."""
    bar = None if json_ else stdout

    def upload(client: Client) -> Json:
        kind = {"config": config} if config else {"architecture": architecture} if architecture else {}
        description = spec_file.apply_changes(kind, changes or [])
        return uploading.upload_detector(client, name, file, description, classes, wait=wait, console=bar)

    row = call_service(data, upload)
    show(row, lambda row: f"{row['id']}  {row['name']}  {row['status']}", json_)


@detectors.command("list")
def list_detectors(data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """List registered detectors."""
    rows = call_service(data, lambda client: {"data": list(client.each("/detectors"))})
    show(
        rows, lambda answer: "\n".join(f"{row['id']}  {row['name']}  {row['status']}" for row in answer["data"]), json_
    )
