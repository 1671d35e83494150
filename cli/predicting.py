"""`frs predict`: find objects on an image with an exported student, and draw them beside the teacher's."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw

from cli import render
from cli.arguments import job_ids
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, exit_on_error, show
from frs.export import frs_runner
from frs_client import Client, Json, ServiceError

app = typer.Typer()
CAPTION_HEIGHT = 16
"""Height in pixels of the line above each picture."""


@app.command()
def predict(
    id: Annotated[str, typer.Argument(metavar="JOB_OR_DETECTOR", autocompletion=job_ids)],
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    compare: Annotated[
        list[str] | None, typer.Option(help="teacher or baseline; repeat for both. They must be exported, too.")
    ] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Lowest score.")] = 0.3,
    format_: Annotated[str, typer.Option("--format", help="onnx, onnx-int8 or onnx-no-nms.")] = "onnx",
    save: Annotated[Path | None, typer.Option(help="Image file to write, with the boxes side by side.")] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Find objects on an image with the exported student of a job, or with an exported detector."""

    def predict(client: Client) -> Json:
        if save and (reason := frs_runner.why_not_saved(save, image)):
            raise ServiceError(
                f"--save: {reason}.", "Name a new file with a suffix such as .png, in a folder that exists."
            )
        is_job = id.startswith("job_")
        if compare and not is_job:
            raise ServiceError(
                "--compare needs a job: a registered detector has no teacher and no baseline.",
                f"Leave out --compare, or name the student's job instead of {id}.",
            )
        options: Json = {"threshold": threshold, "format": format_}
        if is_job:
            found = client.jobs.predict(id, image, compare=compare or (), **options)
        else:
            found = client.detectors.predict(id, image, **options)
        return found.model_dump(mode="json")

    answer = call_service(data, predict)
    show(answer, render.prediction, json_)
    if save:
        with exit_on_error():
            _save(draw(image, answer), save)


def _save(picture: Image.Image, path: Path) -> None:
    """Write the picture. Raises ServiceError."""
    try:
        picture.save(path)
    except (OSError, ValueError) as error:  # ValueError: too large for the format
        reason = getattr(error, "strerror", None) or error
        raise ServiceError(f"{path} cannot be written: {reason}.", "Name another file with --save.") from None


def draw(path: Path, prediction: Json) -> Image.Image:
    """Return the image once for each result, side by side, with its boxes and a caption."""
    image = frs_runner.load_image(path)
    width, height = prediction["width"], prediction["height"]
    picture = Image.new("RGB", (width * len(prediction["results"]), height + CAPTION_HEIGHT), "white")
    classes = sorted({found["label"] for result in prediction["results"] for found in result["objects"]})
    for column, result in enumerate(prediction["results"]):
        objects = result["objects"]
        boxes = np.array([found["box"] for found in objects]).reshape(-1, 4)
        scores = np.array([found["score"] for found in objects])
        labels = np.array([classes.index(found["label"]) for found in objects], int)
        picture.paste(frs_runner.draw(image, boxes, scores, labels, classes), (column * width, CAPTION_HEIGHT))
        ImageDraw.Draw(picture).text((column * width + 4, 2), f"{result['role']}: {len(objects)}", fill="black")
    return picture
