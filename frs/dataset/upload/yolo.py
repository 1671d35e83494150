"""YOLO: a YAML or text file with class names, usually `data.yaml`, and image and label folders by split.

The folders are `images/SPLIT` and `labels/SPLIT`, or `SPLIT/images` and `SPLIT/labels`, where SPLIT is `train`, and
`val`, `valid` or `validation`; or `images` and `labels` alone, as the training split. A line of a label file holds a
class and a box, or a class and a polygon; coordinates are fractions of the image's width and height. A
validation split may have no label folder; its images then count as images without objects.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from frs.dataset import image_files
from frs.dataset.coco import MAX_CLASSES
from frs.dataset.fields import is_text
from frs.dataset.issues import printable
from frs.dataset.upload.annotated_images import AnnotatedDataset, AnnotatedImage, AnnotationErrors, Box
from frs.dataset.upload.archive import IMAGE_SUFFIXES
from frs.errors import BadDataset

_MAX_YAML_BYTES, _MAX_LABEL_BYTES = 1 << 20, 16 << 20
_MAX_DEPTH = 20
_VAL_NAMES = ("val", "valid", "validation")
_TOLERANCE = 0.01
"""Fraction of the width or height that a box may extend beyond the image; the box is clipped."""


class _Split(NamedTuple):
    images: Path
    labels: Path


class _InvalidLabel(Exception):
    pass


def is_layout(folder: Path) -> bool:
    """Return whether the folder has a file of class names, and folders of training images and labels."""
    return _find_train(folder) is not None and _find_names_file(folder) is not None


def read(folder: Path) -> AnnotatedDataset:
    """Return the annotated images. Raises BadDataset with the files and lines of the first errors."""
    names_file, train = _find_names_file(folder), _find_train(folder)
    assert names_file and train, "is_layout() returned True"
    classes, errors = _read_classes(names_file), AnnotationErrors()
    val = next((split for name in _VAL_NAMES for split in _candidates(folder, name) if split.images.is_dir()), None)
    train_images, val_images = (split and list(_read_images(folder, split, classes, errors)) for split in (train, val))
    errors.raise_if_any()
    return AnnotatedDataset(classes, train_images or [], val_images)


def _find_names_file(folder: Path) -> Path | None:
    usual = [folder / name for name in ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names.txt")]
    others = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    return next((path for path in [*usual, *others] if path.is_file()), None)


def _find_train(folder: Path) -> _Split | None:
    candidates = [*_candidates(folder, "train"), _Split(folder / "images", folder / "labels")]
    return next((split for split in candidates if split.images.is_dir() and split.labels.is_dir()), None)


def _candidates(folder: Path, name: str) -> list[_Split]:
    return [
        _Split(folder / "images" / name, folder / "labels" / name),
        _Split(folder / name / "images", folder / name / "labels"),
    ]


def _read_classes(file: Path) -> tuple[str, ...]:
    text = _read_text(file, _MAX_YAML_BYTES)
    if file.suffix == ".txt":
        names: Any = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        content = _parse_yaml(text, file.name)
        names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise BadDataset(f"{file.name}: the keys of `names` are not the numbers from 0 without gaps.")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not 0 < len(names) <= MAX_CLASSES:
        raise BadDataset(f"{file.name} has no `names`, a list of 1 to {MAX_CLASSES:,} class names.")
    if not all(is_text(name, 200) for name in names) or len(set(names)) < len(names):
        raise BadDataset(f"{file.name}: `names` must be distinct texts of 1 to 200 characters.")
    return tuple(names)


def _parse_yaml(text: str, name: str) -> Any:
    """Parse YAML without aliases, which can expand a few lines to gigabytes."""
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _MAX_DEPTH:
                raise BadDataset(
                    f"{name} uses aliases or is nested too deeply.", "Write the class names as a plain list."
                )
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadDataset(f"{name}{line}: is not valid YAML.") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise BadDataset(f"{name} is not valid YAML.") from error


def _read_text(file: Path, max_bytes: int) -> str:
    if file.stat().st_size > max_bytes:
        raise BadDataset(f"{printable(file.name)} has more than {max_bytes >> 20} MiB.")
    try:
        return file.read_text("utf-8-sig")
    except ValueError as error:
        raise BadDataset(f"{printable(file.name)} is not UTF-8 text.") from error


def _read_images(
    root: Path, split: _Split, classes: Sequence[str], errors: AnnotationErrors
) -> Iterator[AnnotatedImage]:
    unused = {path for path in split.labels.rglob("*.txt") if path.name != "classes.txt"}
    for path in sorted(split.images.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            name = path.relative_to(split.images)
            labels = (split.labels / name).with_suffix(".txt")
            unused.discard(labels)
            yield _read_image(root, path, name.as_posix(), labels, classes, errors)
    for labels in sorted(unused):
        errors.add(f"{printable(labels.relative_to(root).as_posix())} belongs to no image.")


def _read_image(
    root: Path, path: Path, name: str, labels: Path, classes: Sequence[str], errors: AnnotationErrors
) -> AnnotatedImage:
    """Return the image with its boxes.

    Without a label file it has no boxes. An unreadable image gets size 1x1, so that the check reports it.
    """
    size = image_files.read_image_size(path)
    if size is None or not labels.is_file():
        return AnnotatedImage(path, name, *(size or (1, 1)), boxes=())
    boxes = []
    for number, line in enumerate(_read_text(labels, _MAX_LABEL_BYTES).splitlines(), 1):
        if line.strip():
            try:
                boxes.append(_parse_label(line.split(), classes, *size))
            except _InvalidLabel as error:
                where = printable(labels.relative_to(root).as_posix())
                errors.add(f"{where}, line {number}: {error}.")
    return AnnotatedImage(path, name, *size, boxes=tuple(boxes))


def _parse_label(fields: Sequence[str], classes: Sequence[str], width: int, height: int) -> Box:
    label = _parse_class(fields[0], classes)
    x, y = _get_extent([_parse_fraction(text) for text in fields[1:]])
    return Box(label, x[0] * width, y[0] * height, x[1] * width, y[1] * height)


def _parse_class(text: str, classes: Sequence[str]) -> str:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < len(classes)):
        raise _InvalidLabel(f"class {printable(text, 40)} is not one of 0 to {len(classes) - 1}")
    return classes[int(text)]


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
