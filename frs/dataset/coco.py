"""Reader of COCO annotation files into columns; compact enough for COCO itself, and safe on untrusted files."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frs.dataset.coco_boxes import Boxes, read_boxes
from frs.dataset.coco_images import CocoImage, read_images
from frs.dataset.fields import Id, is_text, number_ids, read_id
from frs.dataset.issues import IssueCollector, printable
from frs.errors import BadDataset

MAX_BYTES = 2 << 30
"""Largest annotation file that is read, in bytes."""
MAX_CLASSES = 20_000
"""Largest number of categories that is read."""


@dataclass(frozen=True, eq=False)
class CocoFile:
    """Valid content of a COCO annotation file: classes, images and boxes.

    `read` omits invalid entries and adds them to its `IssueCollector`.
    """

    classes: tuple[str, ...]
    """Class names by ascending category id; a label is an index into this tuple. Text ids keep the file's order."""
    category_ids: tuple[int, ...]
    """Category id of each class; if the file has ids that are texts or beyond 2**53, the position from 1."""
    images: tuple[CocoImage, ...]
    """Valid images in the order of the file."""
    boxes: Boxes
    """Boxes sorted by image; the boxes of one image are in the order of the file."""
    images_listed: int
    """Number of entries under `images` in the file, including the invalid ones."""
    repeated_boxes: int = 0
    """Number of boxes left out because an earlier box is equal in image, class, position and flags."""
    placeholder: str | None = None
    """Name of Roboflow's category 0, which is left out of `classes`; see `matching`."""
    _starts: NDArray[np.int64] = field(init=False, repr=False)
    """(images + 1,): row of `boxes` at which the boxes of each image start."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", np.searchsorted(self.boxes.image, np.arange(len(self.images) + 1)))

    def without_boxes(self) -> "CocoFile":
        """Return the same file with an empty box table."""
        return replace(self, boxes=self.boxes.take(slice(0)))

    def matching(self, classes: Collection[str]) -> "CocoFile":
        """Return the file with its placeholder category as the first class if another split uses it: see `classes`.

        Roboflow lists the project itself as category 0, the supercategory of the others, and no box uses it.
        """
        if self.placeholder is None or self.placeholder not in classes:
            return self
        boxes = replace(self.boxes, label=self.boxes.label + np.int32(1))
        names, ids = (self.placeholder, *self.classes), (0, *self.category_ids)
        return replace(self, classes=names, category_ids=ids, boxes=boxes, placeholder=None)

    def boxes_of(self, index: int) -> Boxes:
        """Return the boxes of `images[index]`, as array views."""
        return self.boxes.take(slice(int(self._starts[index]), int(self._starts[index + 1])))


def read(annotations: Path, issues: IssueCollector | None = None) -> CocoFile:
    """Return the valid content of a COCO annotation file; add an issue to `issues` for every invalid entry.

    Raises BadDataset if the file is missing, is not JSON, has no list of images, annotations or categories, lists no
    images or categories, or has an invalid category.
    """
    issues = IssueCollector() if issues is None else issues
    name = printable(annotations.name)
    content = load_document(annotations, name)
    entries = {key: _get_entries(content, key, name) for key in ("categories", "images", "annotations")}
    categories = _read_categories(entries["categories"], name, issues)
    images, index_by_id = read_images(entries["images"], name, issues)
    boxes, repeated = read_boxes(entries["annotations"], images, index_by_id, list(categories), issues)
    numbers = number_ids(categories)
    coco = CocoFile(
        classes=tuple(categories.values()),
        category_ids=tuple(numbers[category_id] for category_id in categories),
        images=images,
        boxes=boxes,
        images_listed=len(entries["images"]),
        repeated_boxes=repeated,
    )
    return _drop_placeholder(coco, entries["categories"])


def _drop_placeholder(coco: CocoFile, categories: list[dict[str, Any]]) -> CocoFile:
    """Return the file without its first category if that is a placeholder: see `find_placeholder`."""
    name = find_placeholder(categories)
    if name is None or coco.category_ids[0] != 0 or (coco.boxes.label == 0).any():
        return coco
    boxes = replace(coco.boxes, label=coco.boxes.label - np.int32(1))
    return replace(
        coco, classes=coco.classes[1:], category_ids=coco.category_ids[1:], boxes=boxes, placeholder=coco.classes[0]
    )


def find_placeholder(categories: list[Any]) -> str | None:
    """Return the name of category 0 if it is the supercategory of another category, as in exports of Roboflow."""
    entries = [entry for entry in categories if isinstance(entry, dict)]
    names = {entry.get("name") for entry in entries if entry.get("id") == 0 and isinstance(entry.get("name"), str)}
    others = (entry.get("supercategory") for entry in entries if entry.get("id") != 0)
    return next((name for name in others if isinstance(name, str) and name in names), None)


def load_document(annotations: Path, name: str) -> dict[str, Any]:
    """Return the JSON object in the file, without segmentations and keypoints.

    Raises BadDataset, which calls the file `name`, if the file cannot be read or is not a JSON object.
    """
    try:
        if not annotations.is_file():
            raise BadDataset(f"There is no annotation file {name}.")
        if annotations.stat().st_size > MAX_BYTES:
            raise BadDataset(f"{name} has more than {MAX_BYTES >> 30} GiB, the limit for annotation files.")
        content = json.loads(annotations.read_text("utf-8-sig"), object_hook=_drop_outlines)
    except OSError as error:
        raise BadDataset(f"{name} cannot be read: {error.strerror}.") from error
    except RecursionError as error:
        raise BadDataset(f"{name} is nested too deeply to be a COCO annotation file.") from error
    except MemoryError as error:
        raise BadDataset(f"{name} does not fit into memory.") from error
    except ValueError as error:  # malformed JSON, bytes that are not UTF-8, integers of thousands of digits
        raise BadDataset(f"{name} is not JSON: {printable(str(error))}.") from error
    if not isinstance(content, dict):
        raise BadDataset(f"{name} is not a JSON object with images, annotations and categories.")
    return content


def _drop_outlines(entry: dict[str, Any]) -> dict[str, Any]:
    """Drop polygons while parsing: they take most of the file and most of the memory."""
    entry.pop("segmentation", None)
    entry.pop("keypoints", None)
    return entry


def _get_entries(document: dict[str, Any], key: str, name: str) -> list[Any]:
    if key not in document:
        raise BadDataset(f"{name} has no `{key}`.")
    entries = document[key]
    if not isinstance(entries, list):
        raise BadDataset(f"{name} has `{key}`, which is not a list.")
    if not entries and key != "annotations":
        raise BadDataset(f"{name} lists no {key}.")
    return entries


def _read_categories(entries: list[Any], name: str, issues: IssueCollector) -> dict[Id, str]:
    """Return category names by id, in ascending order of the id; in the order of the file if an id is a text."""
    if len(entries) > MAX_CLASSES:
        raise BadDataset(f"{name} lists {len(entries):,} categories; at most {MAX_CLASSES:,} are allowed.")
    categories: dict[Id, str] = {}
    names: set[str] = set()
    for number, entry in enumerate(entries):
        category_id, class_name = _read_category(entry, number, name)
        if category_id in categories:
            issues.add("category_duplicate", f"Category id {printable(category_id)} is listed twice in {name}.")
            continue
        if class_name in names:
            issues.add("category_duplicate", f"Category name {printable(class_name)!r} is listed twice in {name}.")
        categories[category_id] = class_name
        names.add(class_name)
    if any(isinstance(category_id, str) for category_id in categories):
        return categories
    return dict(sorted(categories.items()))


def _read_category(entry: Any, number: int, name: str) -> tuple[Id, str]:
    category_id = read_id(entry.get("id")) if isinstance(entry, dict) else None
    if category_id is None:
        raise BadDataset(f"{name}: entry {number} of `categories` has no `id`, an integer or a text.")
    if not is_text(entry.get("name"), 200):
        raise BadDataset(f"{name}: category {printable(category_id)} has no `name` of 1 to 200 characters.")
    return category_id, entry["name"]
