"""Writers of the Pascal VOC and YOLO layouts, from a data set in our COCO layout."""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Boxes = dict[str, set[tuple[str, tuple[float, ...]]]]
SPLITS = ("train", "val")


def annotations(folder: Path, split: str) -> Any:
    return json.loads((folder / "annotations" / f"instances_{split}.json").read_text())


def annotated_images(folder: Path, split: str) -> Iterator[tuple[Any, list[tuple[str, list[float]]]]]:
    """Yield each image entry with its boxes: class and [x, y, width, height]."""
    content = annotations(folder, split)
    names = {category["id"]: category["name"] for category in content["categories"]}
    boxes = defaultdict(list)
    for box in content["annotations"]:
        boxes[box["image_id"]].append((names[box["category_id"]], box["bbox"]))
    for image in content["images"]:
        yield image, boxes[image["id"]]


def all_boxes(folder: Path, split: str) -> Boxes:
    """Return the boxes by file name, rounded to hundredths of a pixel."""
    return {
        image["file_name"]: {(name, tuple(round(value, 2) for value in box)) for name, box in boxes}
        for image, boxes in annotated_images(folder, split)
    }


def write_voc(source: Path, target: Path, origin: int = 1) -> Path:
    """Write Pascal VOC and return `target`; `origin` is the number of the first pixel."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (target / name).mkdir(parents=True)
    for split in SPLITS:
        lines = []
        for image, boxes in annotated_images(source, split):
            stem = Path(image["file_name"]).stem
            shutil.copy(source / split / image["file_name"], target / "JPEGImages")
            (target / "Annotations" / f"{stem}.xml").write_text(_format_voc(image, boxes, origin))
            lines.append(stem)
        (target / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return target


def write_yolo(source: Path, target: Path, folders: str = "{kind}/{split}", val: str = "val") -> Path:
    """Write YOLO and return `target`; `folders` is the pattern of its folders, `val` the validation split's name."""
    classes = [category["name"] for category in annotations(source, "train")["categories"]]
    for split in SPLITS:
        folder = val if split == "val" else split
        images, labels = (target / folders.format(kind=kind, split=folder) for kind in ("images", "labels"))
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for image, boxes in annotated_images(source, split):
            shutil.copy(source / split / image["file_name"], images)
            lines = [_format_yolo(image, classes.index(name), box) for name, box in boxes]
            (labels / image["file_name"]).with_suffix(".txt").write_text("\n".join(lines))
    (target / "data.yaml").write_text(f"train: ../train/images\nnc: {len(classes)}\nnames: {json.dumps(classes)}\n")
    return target


def _format_voc(image: Any, boxes: list[tuple[str, list[float]]], origin: int) -> str:
    objects = [
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x + origin}</xmin><ymin>{y + origin}</ymin>"
        f"<xmax>{x + width}</xmax><ymax>{y + height}</ymax></bndbox></object>"
        for name, (x, y, width, height) in boxes
    ]
    size = f"<size><width>{image['width']}</width><height>{image['height']}</height><depth>3</depth></size>"
    return f"<annotation><filename>{image['file_name']}</filename>{size}\n" + "\n".join(objects) + "\n</annotation>"


def _format_yolo(image: Any, label: int, box: list[float]) -> str:
    x, y, width, height = box
    fractions = (
        (x + width / 2) / image["width"],
        (y + height / 2) / image["height"],
        width / image["width"],
        height / image["height"],
    )
    return f"{label} " + " ".join(f"{fraction:.8f}" for fraction in fractions)
