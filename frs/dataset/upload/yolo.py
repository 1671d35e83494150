"""YOLO: text files with a line for each object, as Ultralytics, Darknet, CVAT, Label Studio and labelImg lay them out.

The labels of `images/x.jpg` are in `labels/x.txt`, otherwise beside the image. A line holds a class and a box, with
`kpt_shape` also keypoints, or a class and a polygon; coordinates are fractions of the image's width and height. An
image without a label file has no objects.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from frs.dataset import image_files
from frs.dataset.issues import printable
from frs.dataset.upload.annotated_images import (
    AnnotatedDataset,
    AnnotatedImage,
    AnnotationErrors,
    Box,
    common_folder,
    list_images,
)
from frs.dataset.upload.yolo_config import YoloConfig, find_configs, read_text
from frs.dataset.upload.yolo_labels import LabelFiles
from frs.dataset.upload.yolo_splits import find_splits
from frs.errors import BadDataset

_MAX_LABEL_BYTES = 16 << 20
_TOLERANCE = 0.01
"""Fraction of the width or height that a box may extend beyond the image; the box is clipped."""


class _InvalidLabel(Exception):
    pass


def is_layout(folder: Path) -> bool:
    """Return whether an image of the folder has a label file."""
    labels = LabelFiles(folder)
    return any(labels.find(image) for image in list_images(folder))


def read(folder: Path) -> AnnotatedDataset:
    """Return the annotated images. Raises BadDataset with the files and lines of the first errors."""
    configs, labels, errors = find_configs(folder), LabelFiles(folder), AnnotationErrors()
    if not configs:
        raise BadDataset(
            "There are YOLO labels but no class names: neither a data.yaml with `names` nor a classes.txt.",
            "Add classes.txt with one name a line, in the order of the class numbers, and upload again.",
        )
    splits = find_splits(folder, configs, labels)
    for file in labels.find_unused(list_images(folder)):
        errors.add(f"{printable(file.relative_to(folder).as_posix())} belongs to no image.")
    train, val = (_read_images(splits.get(role), configs[0], labels, errors) for role in ("train", "val"))
    errors.raise_if_any()
    return AnnotatedDataset(configs[0].classes, train or [], val)


def _read_images(
    paths: list[Path] | None, config: YoloConfig, labels: LabelFiles, errors: AnnotationErrors
) -> list[AnnotatedImage] | None:
    if paths is None:
        return None
    root = common_folder(paths)
    return [_read_image(path, path.relative_to(root).as_posix(), config, labels, errors) for path in paths]


def _read_image(
    path: Path, name: str, config: YoloConfig, labels: LabelFiles, errors: AnnotationErrors
) -> AnnotatedImage:
    """Return the image with its boxes. An unreadable image gets size 1x1, so that the check reports it."""
    size, file = image_files.read_image_size(path), labels.find(path)
    if size is None or file is None:
        return AnnotatedImage(path, name, *(size or (1, 1)), boxes=())
    boxes = []
    for number, line in _read_lines(file):
        try:
            boxes.append(_parse_label(line.split(), config, *size))
        except _InvalidLabel as error:
            errors.add(f"{printable(file.relative_to(labels.top).as_posix())}, line {number}: {error}.")
    return AnnotatedImage(path, name, *size, boxes=tuple(boxes))


def _read_lines(labels: Path) -> Iterator[tuple[int, str]]:
    lines = read_text(labels, _MAX_LABEL_BYTES).splitlines()
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _parse_label(fields: Sequence[str], config: YoloConfig, width: int, height: int) -> Box:
    label = _parse_class(fields[0], config.classes)
    x, y = _get_extent(_select_numbers(fields[1:], config.keypoint_values))
    return Box(label, x[0] * width, y[0] * height, x[1] * width, y[1] * height)


def _select_numbers(fields: Sequence[str], keypoint_values: int | None) -> list[float]:
    """Return the numbers of the box or polygon; with keypoints, the box that precedes them."""
    if keypoint_values is None or len(fields) == 4:
        return [_parse_fraction(text) for text in fields]
    if len(fields) != 4 + keypoint_values:
        raise _InvalidLabel(f"{len(fields) + 1} fields; with this `kpt_shape`, {5 + keypoint_values} are expected")
    return [_parse_fraction(text) for text in fields[:4]]


def _parse_class(text: str, classes: Sequence[str]) -> str:
    digits = text.partition(".")[0] if text.partition(".")[2].strip("0") == "" else text  # such as 1.0
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and int(digits) < len(classes)):
        raise _InvalidLabel(f"class {printable(text, 40)} is not one of 0 to {len(classes) - 1}")
    return classes[int(digits)]


def _parse_fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -_TOLERANCE <= value <= 1 + _TOLERANCE:
        raise _InvalidLabel(f"{printable(text, 40)} is not a number from 0 to 1")
    return value


def _get_extent(fractions: Sequence[float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return (left, right) and (top, bottom) of a box or polygon, clipped to the image."""
    if len(fractions) == 4:
        x, y, width, height = fractions
        extent = (x - width / 2, x + width / 2), (y - height / 2, y + height / 2)
    elif len(fractions) >= 6 and len(fractions) % 2 == 0:
        extent = (min(fractions[::2]), max(fractions[::2])), (min(fractions[1::2]), max(fractions[1::2]))
    else:
        raise _InvalidLabel(f"{len(fractions) + 1} fields; a class and the 4 numbers of a box are expected")
    (left, right), (top, bottom) = extent
    return (max(0.0, left), min(1.0, right)), (max(0.0, top), min(1.0, bottom))
