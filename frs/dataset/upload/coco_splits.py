"""One split of an uploaded COCO data set: its annotation file with the images that it lists."""

from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from frs.dataset.coco import load_document
from frs.dataset.fields import Id, is_text, match_id, read_id
from frs.dataset.issues import printable
from frs.dataset.upload.annotated_images import common_folder
from frs.dataset.upload.coco_images import ImageFiles
from frs.dataset.upload.split_names import SplitRole
from frs.errors import BadDataset

Document = dict[str, Any]
KEYS = ("images", "annotations", "categories")
"""Lists of a COCO document."""


class CocoSplit(NamedTuple):
    """Annotation file, and where its images are."""

    name: str
    """Path of the annotation file within the archive, for messages."""
    annotations: Path
    document: Document
    images: Path
    """Folder that the listed file names are relative to."""
    files: dict[str, Path]
    """Image files that exist, by `file_name` as written in the document."""


def read_split(top: Path, annotations: Path, role: SplitRole | None, images: ImageFiles) -> CocoSplit:
    """Return an annotation file with its images. Raises BadDataset if the file is unusable or names several folders."""
    name = annotations.relative_to(top).as_posix()
    document = load_document(annotations, printable(name))
    for key in KEYS:
        if not isinstance(document.get(key), list):
            raise BadDataset(f"{printable(name)} has no list of `{key}`.")
    file_names = list(dict.fromkeys(filter(None, map(get_file_name, document["images"]))))
    root = images.find_root(file_names, annotations, role)
    files = images.find(root, file_names, role)
    return CocoSplit(name, annotations, document, root, files)


def get_file_name(image: Any) -> str:
    """Return the image's file name; empty if it is invalid, which the check reports."""
    name = image.get("file_name") if isinstance(image, dict) else None
    return name if isinstance(name, str) and is_text(name, 1024) else ""


def append(split: CocoSplit, other: CocoSplit) -> CocoSplit:
    """Return the split with the entries of another annotation file, under ids that are free in the split.

    Categories are matched by name. Boxes of an image or a category that the other file does not list get none, and are
    left to the check.
    """
    root = common_folder([split.images / "image", other.images / "image"])
    names = {name: _rename(name, other, root) for name in map(get_file_name, other.document["images"]) if name}
    categories, category_ids = _append_categories(split.document["categories"], other.document["categories"])
    images, image_ids = _renumber(split.document["images"], other.document["images"])
    boxes, _ = _renumber(split.document["annotations"], other.document["annotations"])
    for image in images:
        if name := names.get(get_file_name(image)):
            image["file_name"] = name
    for box in boxes:
        if isinstance(box, dict):
            box["image_id"] = _translate(box.get("image_id"), image_ids)
            box["category_id"] = _translate(box.get("category_id"), category_ids)
    document = split.document | {
        "images": [*split.document["images"], *images],
        "annotations": [*split.document["annotations"], *boxes],
        "categories": categories,
    }
    files = split.files | {names[name]: path for name, path in other.files.items()}
    return split._replace(document=document, images=root, files=files)


def _rename(file_name: str, split: CocoSplit, root: Path) -> str:
    """Return a file name that no image of another folder has, also of an image that is missing."""
    path = split.files.get(file_name)
    if path and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return f"{split.annotations.stem}/{file_name}"


def _append_categories(rows: list[Any], others: list[Any]) -> tuple[list[Any], dict[Id, Id]]:
    """Return the categories of both files, and the ids of the other one's in the result."""
    id_by_name = {name: row_id for row, row_id in _read_ids(rows) if (name := _get_name(row))}
    unknown = [row for row in others if _get_name(row) not in id_by_name]
    added, ids = _renumber(rows, unknown)
    matched = {row_id: id_by_name[name] for row, row_id in _read_ids(others) if (name := _get_name(row)) in id_by_name}
    return [*rows, *added], ids | matched


def _get_name(category: Any) -> str | None:
    """Return the category's name; None if it is invalid, which the check reports."""
    name = category.get("name") if isinstance(category, dict) else None
    return name if isinstance(name, str) else None


def _renumber(rows: list[Any], others: list[Any]) -> tuple[list[Any], dict[Id, Id]]:
    """Return copies of the `others` with ids that no row has, and the new id by the old one."""
    numbers = count(1 + max((row_id for _, row_id in _read_ids(rows) if isinstance(row_id, int)), default=0))
    ids: dict[Id, Id] = {row_id: next(numbers) for row_id in dict.fromkeys(row_id for _, row_id in _read_ids(others))}
    copies = [dict(row) if isinstance(row, dict) else row for row in others]
    for copy, row_id in _read_ids(copies):
        copy["id"] = ids[row_id]
    return copies, ids


def _read_ids(rows: Iterable[Any]) -> Iterator[tuple[dict[str, Any], Id]]:
    for row in rows:
        if isinstance(row, dict) and (row_id := read_id(row.get("id"))) is not None:
            yield row, row_id


def _translate(value: Any, ids: dict[Id, Id]) -> Id | None:
    listed = match_id(read_id(value), ids)
    return None if listed is None else ids[listed]
