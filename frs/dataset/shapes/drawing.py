"""Writer of synthetic data sets in COCO layout, for demos and tests; the same seed gives the same files."""

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numpy.random import default_rng
from PIL import Image

from frs.dataset.shapes.scene import NAMES, DrawnObject, draw_scene
from frs.errors import BadDataset

ProgressCallback = Callable[[int, int], None]
"""Receives the number of images finished so far and the total number of images."""

_EDITION = 1
"""Version of the drawing code; incremented when the same seed gives different images."""
_SPLITS = ("train", "val")


def draw_dataset(
    folder: Path,
    *,
    train: int = 400,
    val: int = 150,
    size: int = 160,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> None:
    """Draw a data set into `train/`, `val/` and `annotations/` below `folder`; skip the splits that exist already.

    `train` and `val` are numbers of images, `size` is the side of an image in pixels. An image depends only on seed,
    split and its number, so a smaller data set is the beginning of a larger one. `progress(done, images)` is called
    after each image.

    Raises BadDataset if `folder` holds annotations of a data set that was not drawn by this function.
    """
    done = 0
    for split, count in zip(_SPLITS, (train, val), strict=True):
        for _ in _draw_split(folder, split, count, size, seed):
            done += 1
            if progress:
                progress(done, train + val)


def _draw_split(folder: Path, split: str, count: int, size: int, seed: int) -> Iterator[None]:
    """Draw one split, yielding after every image. The annotation file is written last, so it marks a complete split."""
    annotations = folder / "annotations" / f"instances_{split}.json"
    parameters = {"edition": _EDITION, "split": split, "images": count, "size": size, "seed": seed}
    document = _new_document(parameters)
    if _read_parameters(annotations) == parameters and _all_exist(folder / split, count):
        yield from (None for _ in range(count))
        return
    annotations.unlink(missing_ok=True)
    for number in range(count):
        scene = draw_scene(default_rng([seed, _SPLITS.index(split), number]), size)
        _write(folder / split / _file_name(number), _encode_jpeg(scene.image))
        _add_image(document, number, size, scene.objects)
        yield
    _write(annotations, json.dumps(document).encode())


def _new_document(parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "info": {"description": "Drawn shapes", "drawn": parameters},
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)],
    }


def _add_image(document: dict[str, Any], number: int, size: int, objects: tuple[DrawnObject, ...]) -> None:
    image = {"id": number + 1, "file_name": _file_name(number), "width": size, "height": size}
    document["images"].append(image)
    for drawn in objects:
        annotation = {
            "id": len(document["annotations"]) + 1,
            "image_id": image["id"],
            "category_id": drawn.label + 1,
            "bbox": drawn.box,
            "area": drawn.box[2] * drawn.box[3],
            "iscrowd": 0,
        }
        document["annotations"].append(annotation)


def _read_parameters(annotations: Path) -> object:
    """Return the parameters that a drawn annotation file records, or None if there is no file."""
    if not annotations.exists():
        return None
    try:
        return json.loads(annotations.read_text())["info"]["drawn"]
    except (ValueError, KeyError, TypeError) as error:
        text = f"The folder already holds {annotations.name} of a data set that was not drawn."
        raise BadDataset(text, "Choose a new folder for the drawn data set.") from error


def _all_exist(folder: Path, count: int) -> bool:
    return all((folder / _file_name(number)).is_file() for number in range(count))


def _file_name(number: int) -> str:
    return f"{number + 1:06d}.jpg"


def _encode_jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=92, subsampling=0)
    return stream.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)
