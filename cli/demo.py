"""`frs demo`: distil a small detector on generated data, in minutes on two CPU cores."""

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from rich.console import Console

from cli import render
from cli.up import LOOPBACK, LocalService, free_port
from cli.watching import follow
from frs.cli.progress import drawing_bar
from frs.dataset.shapes.drawing import draw_dataset
from frs_client import Client, Json
from frs_client.requests import path_of

RECIPE = "shapes_gfl"
TRAIN_IMAGES, VAL_IMAGES = 400, 150


def run(data: Path, console: Console) -> bool:
    """Run the demo in the folder `data` and return whether both training runs succeeded.

    Raises ServiceError if the service does not start or a request fails.
    """
    console.print("[bold]1. Data[/]: generated scenes with four classes and look-alike distractors")
    with drawing_bar("drawing") as progress:
        draw_dataset(data / "datasets" / "shapes", train=TRAIN_IMAGES, val=VAL_IMAGES, progress=progress)
    copy_teacher_weights(data / "models")
    console.print("[bold]2. Service[/]: API and worker, SQLite, one data folder")
    with LocalService(data, LOOPBACK, free_port(), None, None) as service:
        console.print(f"   {service.url}/docs", highlight=False)
        return _distil(Client(data=data), data / "student", console)


def copy_teacher_weights(models: Path) -> None:
    """Copy the packaged teacher weights, which the recipe `shapes_teacher` trained, into the models folder."""
    models.mkdir(parents=True, exist_ok=True)
    for weights in files("frs.recipes").joinpath("weights").iterdir():
        with as_file(weights) as file:
            shutil.copy(file, models / file.name)


def _distil(client: Client, output: Path, console: Console) -> bool:
    if "shapes" not in {row["name"] for row in client.each("/datasets")}:
        client.post("/datasets", {"name": "shapes"})
    job = client.post("/jobs", client.get(path_of("recipes", RECIPE))["spec"])
    [baseline_id] = job["baseline_job_ids"]
    console.print(f"[bold]3. Student with distillation[/]: {job['id']}")
    distilled = follow(client, job["id"], console)
    console.print(f"[bold]4. Baseline: the same student without a teacher[/], same seed and schedule: {baseline_id}")
    baseline = follow(client, baseline_id, console)
    if not distilled["status"] == baseline["status"] == "succeeded":
        return False
    follow(client, job["comparison_job_id"], console)
    _print_results(client, job, output, console)
    return True


def _print_results(client: Client, job: Json, output: Path, console: Console) -> None:
    console.print("[bold]5. Result[/]: COCO metrics on the validation images, in percent")
    report = client.get(path_of("jobs", job["id"], "report"))
    console.print(render.report(report), highlight=False)
    console.print("Student weights (also as safetensors), config, report and report images:")
    for file in client.jobs.pull(job["id"], output):
        console.print(f"   {file}", highlight=False)
