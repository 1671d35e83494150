"""The `frs` command: run the service, post jobs, follow them, fetch what they made."""

import json
import signal
from pathlib import Path
from typing import Annotated

import typer

from cli import actions, compare, keys, models, plan, render, uploading
from cli import demo as demonstration
from cli import queue as line
from cli.arguments import Changes, JobId, SpecSource, content_of, job_ids, recipe_names
from cli.client import Client, Json, ServiceError
from cli.pulling import pull as fetch
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, problems, screen
from cli.terminal import call_service as _answer
from cli.terminal import fail as _fail
from cli.terminal import rows as _rows
from cli.terminal import show as _show
from cli.up import LocalService
from cli.watching import derived_job_ids, follow
from frs import spec_file
from frs.errors import FrsError
from frs.isolation.process import hide_memory

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
datasets = typer.Typer(no_args_is_help=True, help="COCO-format data sets the service can train on.")
detectors = typer.Typer(no_args_is_help=True, help="Teachers and published students.")
app.add_typer(datasets, name="datasets")
app.add_typer(detectors, name="detectors")
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
for more in (actions, plan, compare, line):
    app.add_typer(more.app)


@app.command()
def up(
    data: Annotated[Path, typer.Option(envvar="FRS_DATA", help="Where everything is kept.")] = DEFAULT_DATA_DIR,
    port: int = 8000,
    host: str = "127.0.0.1",
    datasets: Annotated[Path | None, typer.Option(help="Folder of data sets [<data>/datasets].")] = None,
    models: Annotated[Path | None, typer.Option(help="Folder of weights [<data>/models].")] = None,
) -> None:
    """Run the service here: API and worker, nothing else to install. Ctrl-C ends it; running jobs go on next time."""
    for ending in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background jobs start with it ignored
        signal.signal(ending, signal.default_int_handler)
    try:
        hide_memory()  # its environment, too, may hold the keys of object storage
        with LocalService(data, host, port, datasets, models) as service:
            screen.print(f"frs is up at {service.url} (docs: {service.url}/docs)", highlight=False)
            screen.print(
                f"key: {service.data / 'api-key'}   logs: {service.data / 'logs'}   Ctrl-C ends it", highlight=False
            )
            service.watch(lambda said: problems.print(said, style="yellow", highlight=False, markup=False))
    except KeyboardInterrupt:
        screen.print("frs has ended.")
    except ServiceError as error:
        _fail(error)


@app.command()
def demo(data: Annotated[Path, typer.Option(help="Where the demo keeps everything.")] = Path("demo")) -> None:
    """Distil a small detector on drawn data, start to end, and show the proof."""
    try:
        succeeded = demonstration.run(data, screen)
    except (ServiceError, FrsError) as error:
        _fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(0 if succeeded else 1)


@app.command()
def submit(
    spec: SpecSource,
    set_: Changes = None,
    wait: Annotated[bool, typer.Option(help="Follow the job, its baselines and their comparison to the end.")] = False,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Post a job."""

    def post(client: Client) -> Json:
        job = client.post("/jobs", content_of(client, spec, set_))
        return _wait(client, job, quiet=json_) if wait else job

    job = _answer(data, post)
    _show(job, render.job, json_)
    raise typer.Exit(1 if wait and job["status"] != "succeeded" else 0)


@app.command()
def jobs(
    status: str | None = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """The newest jobs."""
    _show(_answer(data, lambda client: client.get("/jobs", status=status, limit=limit)), _rows(render.jobs), json_)


@app.command()
def job(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """One job: state, progress, why it waits or how it ended."""
    _show(_answer(data, lambda client: client.get(f"/jobs/{id}")), render.job, json_)


@app.command()
def watch(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Follow a job with a live bar. Ctrl-C stops watching, not the job."""
    job = _answer(data, lambda client: follow(client, id, None if json_ else screen))
    if json_:
        _show(job, render.job, json_)
    raise typer.Exit(0 if job["status"] == "succeeded" else 1)


@app.command()
def metrics(id: JobId, keys: str | None = None, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """A job's metric series; --keys takes a comma-separated list."""
    _show(_answer(data, lambda client: client.get(f"/jobs/{id}/metrics", keys=keys)), render.metrics, json_)


@app.command()
def logs(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """What a job's trainer said."""
    lines = _answer(data, lambda client: {"data": list(client.each(f"/jobs/{id}/logs", limit=200))})
    _show(lines, lambda answer: "\n".join(line["message"] for line in answer["data"]), json_)


@app.command()
def report(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Teacher, student alone, student with FRS, gain with its interval, and the verdict."""
    answer = _answer(data, lambda client: client.get(f"/jobs/{id}/report"))
    _show(answer, render.report, json_)


@app.command()
def cancel(id: JobId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """End a job now."""
    _show(_answer(data, lambda client: client.post(f"/jobs/{id}/cancel")), render.job, json_)


@app.command()
def pull(
    id: JobId,
    output: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("students"),
    best: Annotated[bool, typer.Option(help="The student of the highest mAP instead of the last.")] = False,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Fetch a job's student: weights, their safetensors twin, the config, the report and its pictures."""
    files = _answer(
        data, lambda client: {"files": [str(file) for file in fetch(client, id, output, "best" if best else "last")]}
    )
    _show(files, lambda answer: "\n".join(answer["files"]), json_)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(autocompletion=recipe_names)] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Ready specs: the paper's pairs and small ones. With a name, that spec."""
    if name is None:
        _show(_answer(data, lambda client: client.get("/recipes")), _rows(render.recipes), json_)
    else:
        recipe = _answer(data, lambda client: client.get(f"/recipes/{name}"))
        _show(recipe, lambda answer: json.dumps(answer["spec"], indent=2), json_)


@datasets.command("add")
def add_dataset(
    name: str,
    train: Annotated[str | None, typer.Option(help="Training images, below the data sets' root [NAME/train].")] = None,
    train_annotations: Annotated[str | None, typer.Option(help="[NAME/annotations/instances_train.json]")] = None,
    val: Annotated[str | None, typer.Option(help="[NAME/val]")] = None,
    val_annotations: Annotated[str | None, typer.Option(help="[NAME/annotations/instances_val.json]")] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Register a data set below the data sets' root; every file and box is checked."""
    halves = {
        "train": {
            "images": train or f"{name}/train",
            "annotations": train_annotations or f"{name}/annotations/instances_train.json",
        },
        "val": {
            "images": val or f"{name}/val",
            "annotations": val_annotations or f"{name}/annotations/instances_val.json",
        },
    }
    answer = _answer(data, lambda client: client.post("/datasets", {"name": name, **halves}))
    _show(answer, render.dataset, json_)


@datasets.command("upload")
def upload_dataset(
    name: str,
    source: Annotated[Path, typer.Argument(metavar="ARCHIVE_OR_FOLDER", exists=True)],
    val_fraction: Annotated[
        float | None, typer.Option(help="Share of the training images to validate on, where there is no such half.")
    ] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Send a data set in COCO, Pascal VOC or YOLO layout: a .zip, .tar or .tar.gz file, or a folder."""
    bar = None if json_ else screen
    answer = _answer(data, lambda client: uploading.dataset(client, name, source, val_fraction, bar))
    _show(answer, render.dataset, json_)


@datasets.command("list")
def list_datasets(data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Registered data sets."""
    _show(_answer(data, lambda client: {"data": list(client.each("/datasets"))}), _rows(render.datasets), json_)


@datasets.command("check")
def check_dataset(id: str, data: DataFolder = DEFAULT_DATA_DIR) -> None:
    """The check report of a data set, by id or name, as JSON."""
    _show(_answer(data, lambda client: client.get(f"/datasets/{id}/check")), str, as_json=True)


@detectors.command("add")
def add_detector(
    name: str,
    job: Annotated[str | None, typer.Option(help="Publish the student of this job.", autocompletion=job_ids)] = None,
    description: Annotated[
        Path | None, typer.Option(help="File with its description (`config` or `architecture`).")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="File below the models folder.")] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Register a detector: a job's student, or a description with a weights file."""
    body: Json = {"name": name, "job": job, "weights": weights}

    def post(client: Client) -> Json:
        body["description"] = spec_file.read(description) if description else None
        return client.post("/detectors", {key: value for key, value in body.items() if value is not None})

    _show(_answer(data, post), lambda row: f"{row['id']}  {row['name']}", json_)


@detectors.command("upload")
def upload_detector(
    name: str,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A torch file or a .safetensors file.")],
    config: Annotated[str | None, typer.Option(help="Such as mmdet::gfl/gfl_r50_fpn_1x_coco.py.")] = None,
    architecture: Annotated[str | None, typer.Option(help="Instead of --config, with the options below.")] = None,
    depth: int | None = None,
    width: int | None = None,
    norm: str | None = None,
    neck_channels: int | None = None,
    stacked_convs: int | None = None,
    classes: Annotated[str | None, typer.Option(help="Separated by commas, if the file does not name them.")] = None,
    wait: Annotated[bool, typer.Option(help="Until a worker has read the file.")] = True,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Send a detector's weights."""
    described = {"config": config, "architecture": architecture, "depth": depth, "width": width, "norm": norm}
    described |= {"neck_channels": neck_channels, "stacked_convs": stacked_convs, "classes": classes}
    bar = None if json_ else screen
    row = _answer(data, lambda client: uploading.detector(client, name, file, described, wait=wait, screen=bar))
    _show(row, lambda row: f"{row['id']}  {row['name']}  {row['status']}", json_)


@detectors.command("list")
def list_detectors(data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Registered detectors."""
    rows = _answer(data, lambda client: {"data": list(client.each("/detectors"))})
    _show(
        rows, lambda answer: "\n".join(f"{row['id']}  {row['name']}  {row['status']}" for row in answer["data"]), json_
    )


def _wait(client: Client, job: Json, quiet: bool) -> Json:
    job = follow(client, job["id"], None if quiet else screen)
    for other in derived_job_ids(job):
        follow(client, other, None if quiet else screen)
    return job
