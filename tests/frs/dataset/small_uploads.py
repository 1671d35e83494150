"""Uploads of a few small files, and the names of the images that their conversion puts into each split."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from layout_writers import all_boxes
from PIL import Image

from frs.dataset.upload.layouts import convert

SPLITS = ("train", "val")
LABEL = "0 0.5 0.5 0.25 0.25\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def draw(path: Path, width: int = 96) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, 64)).save(path)
    return path


def format_voc(file_name: str, width: int = 96) -> str:
    return (
        f"<annotation><filename>{file_name}</filename><size><width>{width}</width><height>64</height></size><object>"
        "<name>cat</name><bndbox><xmin>11</xmin><ymin>11</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>"
        "</annotation>"
    )


def write_voc_root(root: Path, names: Iterable[str], lists: Mapping[str, str]) -> None:
    """Write JPEGImages/, Annotations/ and ImageSets/Main/; `lists` are the names of a list separated by spaces."""
    for name in names:
        draw(root / f"JPEGImages/{name}.jpg")
        write(root / f"Annotations/{name}.xml", format_voc(f"{name}.jpg"))
    for name, listed in lists.items():
        write(root / f"ImageSets/Main/{name}.txt", "".join(f"{line}\n" for line in listed.split()))


def format_coco(file_names: Iterable[str], categories: Iterable[str] = ("cat",), width: int = 96) -> str:
    """Return an annotation file with one box an image, of the last category."""
    images = [{"id": n, "file_name": name, "width": width, "height": 64} for n, name in enumerate(file_names, 1)]
    rows = [{"id": n, "name": name} for n, name in enumerate(categories, 1)]
    boxes = [
        {"id": image["id"], "image_id": image["id"], "category_id": len(rows), "bbox": [10, 10, 30, 20]}
        for image in images
    ]
    return json.dumps({"images": images, "annotations": boxes, "categories": rows})


def converted(folder: Path, val_fraction: float | None = None) -> Path:
    target = folder.with_name("converted")
    convert(folder, target, val_fraction)
    return target


def split_names(folder: Path, val_fraction: float | None = None) -> dict[str, set[str]]:
    """Convert, and return the base names of the images of both splits; each must have a box."""
    target = converted(folder, val_fraction)
    boxes = {split: all_boxes(target, split) for split in SPLITS}
    assert all(all(images.values()) for images in boxes.values())
    return {split: {Path(name).name for name in images} for split, images in boxes.items()}
