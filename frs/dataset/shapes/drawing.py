"""A drawn data set in COCO layout, for trying things out where no other is at hand: the same for the same seed."""

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

Progress = Callable[[int, int], None]

_EDITION = 1
"""Counts up whenever the same seed comes to look different."""
_SPLITS = ("train", "val")


def draw_dataset(
    folder: Path,
    *,
    train: int = 400,
    val: int = 150,
    size: int = 160,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Draws `train/`, `val/` and `annotations/` below `folder`, unless exactly that is there already.

    A scene depends on seed, split and its number alone: a smaller set is the beginning of a larger one.
    `progress(done, images)`. Raises BadDataset rather than overwrite a data set that was not drawn.
    """
    done = 0
    for split, count in zip(_SPLITS, (train, val), strict=True):
        for _ in _drawn(folder, split, count, size, seed):
            done += 1
            if progress:
                progress(done, train + val)


def _drawn(folder: Path, split: str, count: int, size: int, seed: int) -> Iterator[None]:
    """Yields after every picture; the annotation file comes last and says by its presence that all are there."""
    annotations = folder / "annotations" / f"instances_{split}.json"
    order = {"edition": _EDITION, "split": split, "images": count, "size": size, "seed": seed}
    document = _document(order)
    if _order_of(annotations) == order and _all_there(folder / split, count):
        yield from (None for _ in range(count))
        return
    annotations.unlink(missing_ok=True)
    for number in range(count):
        scene = draw_scene(default_rng([seed, _SPLITS.index(split), number]), size)
        _write(folder / split / _name(number), _jpeg(scene.picture))
        _add(document, number, size, scene.objects)
        yield
    _write(annotations, json.dumps(document).encode())


def _document(order: dict[str, Any]) -> dict[str, Any]:
    return {
        "info": {"description": "DrawnObject shapes", "drawn": order},
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)],
    }


def _add(document: dict[str, Any], number: int, size: int, objects: tuple[DrawnObject, ...]) -> None:
    image = {"id": number + 1, "file_name": _name(number), "width": size, "height": size}
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


def _order_of(annotations: Path) -> object:
    if not annotations.exists():
        return None
    try:
        return json.loads(annotations.read_text())["info"]["drawn"]
    except (ValueError, KeyError, TypeError) as error:
        text = f"{annotations.name} is there already and belongs to a data set that was not drawn."
        raise BadDataset(text, "Name a new folder to draw in.") from error


def _all_there(folder: Path, count: int) -> bool:
    return all((folder / _name(number)).is_file() for number in range(count))


def _name(number: int) -> str:
    return f"{number + 1:06d}.jpg"


def _jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=92, subsampling=0)
    return stream.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)
