"""Reads a COCO annotation file into columns: lean enough for COCO itself, trusting nothing in the file."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frs.dataset.coco_boxes import Boxes, read_boxes
from frs.dataset.coco_images import CocoImage, read_images
from frs.dataset.fields import is_id, is_text
from frs.dataset.issues import IssueCollector, printable
from frs.errors import BadDataset

MAX_BYTES = 2 << 30
MAX_CLASSES = 20_000


@dataclass(frozen=True, eq=False)
class CocoFile:
    """An annotation file's usable content; what is not usable went to the `IssueCollector` given to `read`."""

    classes: tuple[str, ...]
    """Names by ascending category id: a label is an index into this."""
    category_ids: tuple[int, ...]
    images: tuple[CocoImage, ...]
    boxes: Boxes
    """Sorted by image; within one in the file's order."""
    images_listed: int
    """Entries under `images`, with those that had to be dropped."""
    _starts: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", np.searchsorted(self.boxes.image, np.arange(len(self.images) + 1)))

    def without_boxes(self) -> "CocoFile":
        return replace(self, boxes=self.boxes.take(slice(0)))

    def boxes_of(self, index: int) -> Boxes:
        """The boxes of `images[index]`, as views."""
        return self.boxes.take(slice(int(self._starts[index]), int(self._starts[index + 1])))


def read(annotations: Path, issues: IssueCollector | None = None) -> CocoFile:
    """Single entries that are wrong are left out and told to `issues`.

    Raises BadDataset where nothing can be made of the file as a whole.
    """
    found = IssueCollector() if issues is None else issues
    name = printable(annotations.name)
    content = document(annotations, name)
    entries = {key: _entries(content, key, name) for key in ("categories", "images", "annotations")}
    categories = _categories(entries["categories"], name, found)
    images, places = read_images(entries["images"], name, found)
    return CocoFile(
        classes=tuple(categories.values()),
        category_ids=tuple(categories),
        images=images,
        boxes=read_boxes(entries["annotations"], images, places, list(categories), found),
        images_listed=len(entries["images"]),
    )


def document(annotations: Path, name: str) -> dict[str, Any]:
    """The file's content without outlines. Raises BadDataset."""
    try:
        if not annotations.is_file():
            raise BadDataset(f"There is no annotation file {name}.")
        if annotations.stat().st_size > MAX_BYTES:
            raise BadDataset(f"{name} has more than {MAX_BYTES >> 30} GiB, the most that is read.")
        content = json.loads(annotations.read_text("utf-8-sig"), object_hook=_without_outlines)
    except OSError as error:
        raise BadDataset(f"{name} cannot be read: {error.strerror}.") from error
    except RecursionError as error:
        raise BadDataset(f"{name} is nested too deeply to be a COCO annotation file.") from error
    except MemoryError as error:
        raise BadDataset(f"{name} does not fit into memory.") from error
    except ValueError as error:  # broken JSON, bytes that are not UTF-8, integers of thousands of digits
        raise BadDataset(f"{name} is not JSON: {printable(str(error))}.") from error
    if not isinstance(content, dict):
        raise BadDataset(f"{name} is not a JSON object with images, annotations and categories.")
    return content


def _without_outlines(entry: dict[str, Any]) -> dict[str, Any]:
    """Drops polygons while parsing: they are most of the file and more than most of the memory."""
    entry.pop("segmentation", None)
    entry.pop("keypoints", None)
    return entry


def _entries(document: dict[str, Any], key: str, name: str) -> list[Any]:
    if key not in document:
        raise BadDataset(f"{name} has no `{key}`.")
    entries = document[key]
    if not isinstance(entries, list):
        raise BadDataset(f"{name} has `{key}`, but not as a list.")
    if not entries and key != "annotations":
        raise BadDataset(f"{name} lists no {key}.")
    return entries


def _categories(entries: list[Any], name: str, found: IssueCollector) -> dict[int, str]:
    """Id to name, by ascending id."""
    if len(entries) > MAX_CLASSES:
        raise BadDataset(f"{name} lists {len(entries):,} categories; at most {MAX_CLASSES:,} are read.")
    categories: dict[int, str] = {}
    names: set[str] = set()
    for number, entry in enumerate(entries):
        category_id, class_name = _category(entry, number, name)
        if category_id in categories:
            found.add("category_duplicate", f"Category id {category_id} is listed twice in {name}.")
            continue
        if class_name in names:
            found.add("category_duplicate", f"Category name {printable(class_name)!r} is listed twice in {name}.")
        categories[category_id] = class_name
        names.add(class_name)
    return dict(sorted(categories.items()))


def _category(entry: Any, number: int, name: str) -> tuple[int, str]:
    if not isinstance(entry, dict) or not is_id(entry.get("id")):
        raise BadDataset(f"{name} has a category, entry {number}, without a whole number as `id`.")
    if not is_text(entry.get("name"), 200):
        raise BadDataset(f"{name} has category {entry['id']} without a text of 1 to 200 characters as `name`.")
    return entry["id"], entry["name"]
