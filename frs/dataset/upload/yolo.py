"""YOLO: `data.yaml` with names, `images/{train,val}` and `labels/{train,val}` or `{train,valid}/images` and `.../labels`.

A line of a label file is a class and a box, or a class and an outline, all as shares of the picture's sides.
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

_MAX_YAML, _MAX_LABELS = 1 << 20, 16 << 20
_MAX_DEPTH = 20
_VAL = ("val", "valid", "validation")
_BEYOND = 0.01
"""Share of a side that a box may reach beyond the picture: it is cut there."""


class _Split(NamedTuple):
    images: Path
    labels: Path


def is_layout(folder: Path) -> bool:
    return _train(folder) is not None and _names_file(folder) is not None


def read(folder: Path) -> AnnotatedDataset:
    """Raises BadDataset, naming file and line."""
    names_file, train = _names_file(folder), _train(folder)
    assert names_file and train, "is_here says so"
    classes, faults = _classes(names_file), AnnotationErrors()
    val = next((half for name in _VAL for half in _places(folder, name) if half.images.is_dir()), None)
    halves = [half and list(_pictures(folder, half, classes, faults)) for half in (train, val)]
    faults.refuse()
    return AnnotatedDataset(classes, halves[0] or [], halves[1])


def _names_file(folder: Path) -> Path | None:
    found = [folder / name for name in ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names.txt")]
    others = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    return next((path for path in [*found, *others] if path.is_file()), None)


def _train(folder: Path) -> _Split | None:
    places = [*_places(folder, "train"), _Split(folder / "images", folder / "labels")]
    return next((half for half in places if half.images.is_dir() and half.labels.is_dir()), None)


def _places(folder: Path, split: str) -> list[_Split]:
    return [
        _Split(folder / "images" / split, folder / "labels" / split),
        _Split(folder / split / "images", folder / split / "labels"),
    ]


def _classes(file: Path) -> tuple[str, ...]:
    text = _text(file, _MAX_YAML)
    if file.suffix == ".txt":
        names: Any = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        content = _yaml(text, file.name)
        names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise BadDataset(f"{file.name}: `names` are not numbered from 0 without gaps.")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not 0 < len(names) <= MAX_CLASSES:
        raise BadDataset(f"{file.name} has no `names`, a list of 1 to {MAX_CLASSES:,} class names.")
    if not all(is_text(name, 200) for name in names) or len(set(names)) < len(names):
        raise BadDataset(f"{file.name}: `names` are not all texts of 1 to 200 characters, each once.")
    return tuple(names)


def _yaml(text: str, name: str) -> Any:
    """Without aliases: with them a few lines become gigabytes."""
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
        raise BadDataset(f"{name}{line}: is no YAML.") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise BadDataset(f"{name} is no YAML.") from error


def _text(file: Path, most: int) -> str:
    if file.stat().st_size > most:
        raise BadDataset(f"{printable(file.name)} has more than {most >> 20} MiB.")
    try:
        return file.read_text("utf-8-sig")
    except ValueError as error:
        raise BadDataset(f"{printable(file.name)} is no UTF-8 text.") from error


def _pictures(root: Path, half: _Split, classes: Sequence[str], faults: AnnotationErrors) -> Iterator[AnnotatedImage]:
    unused = {path for path in half.labels.rglob("*.txt") if path.name != "classes.txt"}
    for path in sorted(half.images.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            name = path.relative_to(half.images)
            labels = (half.labels / name).with_suffix(".txt")
            unused.discard(labels)
            yield _picture(root, path, name.as_posix(), labels, classes, faults)
    for labels in sorted(unused):
        faults.add(f"{printable(labels.relative_to(root).as_posix())} belongs to no picture.")


def _picture(
    root: Path, path: Path, name: str, labels: Path, classes: Sequence[str], faults: AnnotationErrors
) -> AnnotatedImage:
    """Without a label file it shows none of the classes; a broken one is left to the check."""
    size = image_files.image_size(path)
    if size is None or not labels.is_file():
        return AnnotatedImage(path, name, *(size or (1, 1)), boxes=())
    boxes = []
    for number, line in enumerate(_text(labels, _MAX_LABELS).splitlines(), 1):
        if line.strip():
            try:
                boxes.append(_box(line.split(), classes, *size))
            except _InvalidLabel as error:
                where = printable(labels.relative_to(root).as_posix())
                faults.add(f"{where}, line {number}: {error}.")
    return AnnotatedImage(path, name, *size, boxes=tuple(boxes))


class _InvalidLabel(Exception):
    pass


def _box(fields: Sequence[str], classes: Sequence[str], width: int, height: int) -> Box:
    label = _label(fields[0], classes)
    x, y = _across([_share(text) for text in fields[1:]])
    return Box(label, x[0] * width, y[0] * height, x[1] * width, y[1] * height)


def _label(text: str, classes: Sequence[str]) -> str:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < len(classes)):
        raise _InvalidLabel(f"class {printable(text, 40)} is not one of 0 to {len(classes) - 1}")
    return classes[int(text)]


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -_BEYOND <= value <= 1 + _BEYOND:
        raise _InvalidLabel(f"{printable(text, 40)} is no number from 0 to 1")
    return value


def _across(shares: Sequence[float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """From where to where a box or an outline reaches, each way, cut at the picture's sides."""
    if len(shares) == 4:
        x, y, width, height = shares
        ends = (x - width / 2, x + width / 2), (y - height / 2, y + height / 2)
    elif len(shares) >= 6 and len(shares) % 2 == 0:
        ends = (min(shares[::2]), max(shares[::2])), (min(shares[1::2]), max(shares[1::2]))
    else:
        raise _InvalidLabel(f"{len(shares) + 1} fields, where a class and the 4 numbers of a box are wanted")
    (left, right), (top, bottom) = ends
    return (max(0.0, left), min(1.0, right)), (max(0.0, top), min(1.0, bottom))
