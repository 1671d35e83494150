"""COCO data sets in our folders, those of the original COCO and those of Roboflow.

Boxes are not changed; the data-set check reports the invalid ones.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from frs.dataset.coco import load_document
from frs.dataset.fields import is_id, is_text
from frs.dataset.issues import printable
from frs.dataset.upload.annotated_images import annotations_file, move_files, split_off_validation, write_json
from frs.errors import BadDataset

Document = dict[str, Any]
_ROBOFLOW = "_annotations.coco.json"


class _Split(NamedTuple):
    images: Path
    annotations: Path


def is_layout(folder: Path) -> bool:
    """Return whether the folder holds a COCO training split."""
    return _find_split(folder, ("train",)) is not None


def convert(folder: Path, target: Path, val_fraction: float | None) -> None:
    """Move images and annotations to their places below `target`, in our COCO layout.

    Without a validation split, `val_fraction` of the training images become one. Raises BadDataset if an annotation
    file is unusable, NoValidationSplit if there is no validation split and no `val_fraction`.
    """
    train, val = _find_split(folder, ("train",)), _find_split(folder, ("val", "valid"))
    assert train, "is_layout() returned True"
    if val is None:
        _divide_training(train, target, val_fraction)
    elif val.images == train.images:
        for name, split in (("train", train), ("val", val)):
            _move_listed_images(split.images, _load_content(split), target, name)
    else:
        for name, split in (("train", train), ("val", val)):
            _move_split(split, target, name)


def _find_split(folder: Path, names: tuple[str, ...]) -> _Split | None:
    return next((split for name in names for split in _candidates(folder, name) if _exists(split)), None)


def _candidates(folder: Path, name: str) -> Iterator[_Split]:
    for year in ("", "2017", "2014"):
        annotations = folder / "annotations" / f"instances_{name}{year}.json"
        for images in (folder / f"{name}{year}", folder / "images" / f"{name}{year}", folder / "images"):
            yield _Split(images, annotations)
    yield _Split(folder / name, folder / name / _ROBOFLOW)


def _exists(split: _Split) -> bool:
    return split.images.is_dir() and split.annotations.is_file()


def _divide_training(train: _Split, target: Path, val_fraction: float | None) -> None:
    content = _load_content(train)
    val_names = split_off_validation(_get_file_names(content), val_fraction)
    for name in ("train", "val"):
        images = [image for image in content["images"] if (_get_file_name(image) in val_names) is (name == "val")]
        ids = {image["id"] for image in images if isinstance(image, dict) and is_id(image.get("id"))}
        boxes = [box for box in content["annotations"] if isinstance(box, dict) and box.get("image_id") in ids]
        _move_listed_images(train.images, content | {"images": images, "annotations": boxes}, target, name)


def _move_listed_images(folder: Path, content: Document, target: Path, name: str) -> None:
    """Move the images that are listed in `content` out of a folder that several splits share."""
    write_json(annotations_file(target, name), content)
    root = folder.resolve()
    file_names = dict.fromkeys(_get_file_names(content))
    existing = ((root / file_name, file_name) for file_name in file_names if (root / file_name).is_file())
    move_files(existing, target / name)


def _move_split(split: _Split, target: Path, name: str) -> None:
    """Move a split whose images have a folder of their own."""
    destination = annotations_file(target, name)
    destination.parent.mkdir(parents=True, exist_ok=True)
    if split.annotations.name == _ROBOFLOW:
        write_json(destination, _load_content(split))
        split.annotations.unlink()
    else:
        split.annotations.rename(destination)
    split.images.rename(target / name)


def _load_content(split: _Split) -> Document:
    content = load_document(split.annotations, printable(split.annotations.name))
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise BadDataset(f"{printable(split.annotations.name)} has no list of `{key}`.")
    if split.annotations.name == _ROBOFLOW:
        content["categories"] = _drop_placeholder(content["categories"], content["annotations"])
    return content


def _drop_placeholder(categories: list[Any], boxes: list[Any]) -> list[Any]:
    """Drop category 0 if no box uses it: Roboflow lists the project itself as that category."""
    used = any(isinstance(box, dict) and box.get("category_id") == 0 for box in boxes)
    if used or len(categories) < 2 or not all(isinstance(category, dict) for category in categories):
        return categories
    return [category for category in categories if (category.get("id"), category.get("supercategory")) != (0, "none")]


def _get_file_names(content: Document) -> list[str]:
    return [name for name in map(_get_file_name, content["images"]) if name]


def _get_file_name(image: Any) -> str:
    """Return the image's file name; empty if it is invalid or leads out of the folder, which the check reports."""
    name = image.get("file_name") if isinstance(image, dict) else None
    if not isinstance(name, str) or not is_text(name, 1024) or name.startswith("/") or ".." in name.split("/"):
        return ""
    return name
