"""`frs demo`: from nothing to a distilled student with its proof, in minutes on two CPU cores."""

import shutil
import socket
from importlib.resources import as_file, files
from pathlib import Path

from rich.console import Console

from cli import render
from cli.client import Client, Json
from cli.pulling import pull
from cli.up import LocalService
from cli.watching import follow
from frs.cli.progress import drawing_bar
from frs.dataset.shapes.drawing import draw_dataset

RECIPE = "shapes_gfl"
TRAIN_IMAGES, VAL_IMAGES = 400, 150
LOOPBACK = "127.0.0.1"


def run(data: Path, screen: Console) -> bool:
    """Whether both runs succeeded. Raises ServiceError."""
    screen.print("[bold]1. Data[/]: drawn scenes, four classes among look-alikes")
    with drawing_bar("drawing") as tick:
        draw_dataset(data / "datasets" / "shapes", train=TRAIN_IMAGES, val=VAL_IMAGES, progress=tick)
    _bring_teacher(data / "models")
    screen.print("[bold]2. LocalService[/]: API and worker, SQLite, one data folder")
    with LocalService(data, LOOPBACK, free_port(), None, None) as service:
        screen.print(f"   {service.url}/docs", highlight=False)
        return _distil(Client.here(data), data / "student", screen)


def _distil(client: Client, to: Path, screen: Console) -> bool:
    if "shapes" not in {row["name"] for row in client.each("/datasets")}:
        client.post("/datasets", {"name": "shapes"})
    job = client.post("/jobs", client.get(f"/recipes/{RECIPE}")["spec"])
    [baseline] = job["baseline_job_ids"]
    screen.print(f"[bold]3. The student under its teacher[/]: {job['id']}")
    distilled = follow(client, job["id"], screen)
    screen.print(f"[bold]4. The same student alone[/], same seed and schedule: {baseline}")
    alone = follow(client, baseline, screen)
    if not distilled["status"] == alone["status"] == "succeeded":
        return False
    follow(client, job["comparison_job_id"], screen)
    _prove(client, job, to, screen)
    return True


def _prove(client: Client, job: Json, to: Path, screen: Console) -> None:
    screen.print("[bold]5. Proof[/]: COCO numbers on the validation images, in percent")
    report = client.get(f"/jobs/{job['id']}/report")
    screen.print(render.report(report), highlight=False)
    screen.print("The student's weights, their safetensors twin, its config, the report and its pictures:")
    for file in pull(client, job["id"], to, "last"):
        screen.print(f"   {file}", highlight=False)


def _bring_teacher(models: Path) -> None:
    """The teacher's weights come with the package; its recipe `shapes_teacher` made them."""
    models.mkdir(parents=True, exist_ok=True)
    for weights in files("frs.recipes").joinpath("weights").iterdir():
        with as_file(weights) as file:
            shutil.copy(file, models / file.name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
