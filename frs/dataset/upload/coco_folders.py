"""COCO in the folders that it comes in: ours, the original's and Roboflow's. Boxes stay as they are, for the check."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from frs.dataset.coco import document
from frs.dataset.fields import is_id, is_text
from frs.dataset.issues import printable
from frs.dataset.upload.annotated_images import annotations_file, move, split_off_validation, write_json
from frs.errors import BadDataset

Document = dict[str, Any]
_ROBOFLOW = "_annotations.coco.json"


class _Split(NamedTuple):
    images: Path
    annotations: Path


def is_layout(folder: Path) -> bool:
    return _find(folder, ("train",)) is not None


def convert(folder: Path, target: Path, val_fraction: float | None) -> None:
    """Moves everything to its place below `target`. Raises BadDataset, NoValidationSplit."""
    train, val = _find(folder, ("train",)), _find(folder, ("val", "valid"))
    assert train, "is_here says so"
    if val is None:
        _split_training(train, target, val_fraction)
    elif val.images == train.images:
        for split, half in (("train", train), ("val", val)):
            _move_listed(half.images, _content(half), target, split)
    else:
        for split, half in (("train", train), ("val", val)):
            _take_over(half, target, split)


def _find(folder: Path, names: tuple[str, ...]) -> _Split | None:
    return next((half for name in names for half in _places(folder, name) if _is_there(half)), None)


def _places(folder: Path, name: str) -> Iterator[_Split]:
    for year in ("", "2017", "2014"):
        annotations = folder / "annotations" / f"instances_{name}{year}.json"
        for images in (folder / f"{name}{year}", folder / "images" / f"{name}{year}", folder / "images"):
            yield _Split(images, annotations)
    yield _Split(folder / name, folder / name / _ROBOFLOW)


def _is_there(half: _Split) -> bool:
    return half.images.is_dir() and half.annotations.is_file()


def _take_over(half: _Split, target: Path, split: str) -> None:
    place = annotations_file(target, split)
    place.parent.mkdir(parents=True, exist_ok=True)
    if half.annotations.name == _ROBOFLOW:
        write_json(place, _content(half))
        half.annotations.unlink()
    else:
        half.annotations.rename(place)
    half.images.rename(target / split)


def _split_training(half: _Split, target: Path, val_fraction: float | None) -> None:
    content = _content(half)
    aside = split_off_validation(_file_names(content), val_fraction)
    for split in ("train", "val"):
        images = [image for image in content["images"] if (_file_name(image) in aside) is (split == "val")]
        ids = {image["id"] for image in images if isinstance(image, dict) and is_id(image.get("id"))}
        boxes = [box for box in content["annotations"] if isinstance(box, dict) and box.get("image_id") in ids]
        _move_listed(half.images, content | {"images": images, "annotations": boxes}, target, split)


def _move_listed(folder: Path, content: Document, target: Path, split: str) -> None:
    """Moves the pictures that are listed from a folder that several halves share."""
    write_json(annotations_file(target, split), content)
    root = folder.resolve()
    there = ((root / name, name) for name in dict.fromkeys(_file_names(content)) if (root / name).is_file())
    move(there, target / split)


def _content(half: _Split) -> Document:
    content = document(half.annotations, printable(half.annotations.name))
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise BadDataset(f"{printable(half.annotations.name)} has no list of `{key}`.")
    if half.annotations.name == _ROBOFLOW:
        content["categories"] = _without_placeholder(content["categories"], content["annotations"])
    return content


def _without_placeholder(categories: list[Any], boxes: list[Any]) -> list[Any]:
    """Roboflow lists the project itself as category 0, which no box has."""
    used = any(isinstance(box, dict) and box.get("category_id") == 0 for box in boxes)
    if used or len(categories) < 2 or not all(isinstance(category, dict) for category in categories):
        return categories
    return [category for category in categories if (category.get("id"), category.get("supercategory")) != (0, "none")]


def _file_names(content: Document) -> list[str]:
    return [name for name in map(_file_name, content["images"]) if name]


def _file_name(image: Any) -> str:
    """Empty where it is none, or leads out of the folder: that is for the check to tell."""
    name = image.get("file_name") if isinstance(image, dict) else None
    if not isinstance(name, str) or not is_text(name, 1024) or name.startswith("/") or ".." in name.split("/"):
        return ""
    return name
