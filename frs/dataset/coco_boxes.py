"""Boxes of a COCO annotation file, as columns."""

from array import array
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frs.dataset.coco_images import NO_IMAGE, CocoImage
from frs.dataset.fields import Id, is_finite, match_id, number_ids, read_id
from frs.dataset.issues import IssueCode, IssueCollector, printable

_NO_LABEL = -1


@dataclass(frozen=True, eq=False, slots=True)
class Boxes:
    """Table of N boxes: one row a box, one array of length N a column."""

    id: NDArray[np.int64]
    """(N,): annotation id; if the file has ids that are texts or beyond 2**53, the annotation's position from 1."""
    image: NDArray[np.int32]
    """(N,): index into `CocoFile.images`."""
    label: NDArray[np.int32]
    """(N,): index into `CocoFile.classes`."""
    xywh: NDArray[np.float64]
    """(N, 4): left, top, width, height in pixels."""
    area: NDArray[np.float64]
    """(N,): area in square pixels, as annotated; width x height if the file has none, or 0."""
    crowd: NDArray[np.bool_]
    """(N,): whether the box marks a crowd (`iscrowd`)."""
    ignored: NDArray[np.bool_]
    """(N,): whether the box is marked `ignore`, as Pascal VOC's difficult objects are."""

    def __len__(self) -> int:
        return len(self.id)

    @property
    def optional(self) -> NDArray[np.bool_]:
        """(N,): whether the box is a crowd or ignored: neither trained on nor counted against a detector."""
        return self.crowd | self.ignored

    def take(self, rows: slice | NDArray[np.int64]) -> "Boxes":
        """Return the selected rows; a slice gives array views."""
        return Boxes(*(getattr(self, column.name)[rows] for column in fields(self)))


def read_boxes(
    entries: list[Any],
    images: tuple[CocoImage, ...],
    index_by_id: dict[Id, int],
    category_ids: list[Id],
    issues: IssueCollector,
) -> tuple[Boxes, int]:
    """Return the valid boxes of the file's `annotations`, sorted by image, and the number of repeated boxes left out.

    Adds an issue for every invalid entry. A repeated box equals an earlier one in image, class, position and flags.
    `index_by_id` maps each image id to its index in `images`, as `read_images` returns it.
    """
    labels = {category_id: label for label, category_id in enumerate(category_ids)}
    ids = [read_id(entry.get("id")) if isinstance(entry, dict) else None for entry in entries]
    numbers = number_ids(ids)
    integers, floats = array("q"), array("d")  # id, image, label, crowd, ignored; x, y, w, h, area
    for number, (entry, box_id) in enumerate(zip(entries, ids, strict=True)):
        index = _find_image(entry, number, box_id, numbers, index_by_id, images, issues)
        if index == NO_IMAGE or box_id is None:
            continue
        label = _find_label(entry, labels)
        if reason := _find_box_error(entry, label):
            _add_issue(*reason, images[index], box_id, numbers[box_id], issues)
            continue
        x, y, w, h = entry["bbox"]
        flags = (bool(entry.get("iscrowd")), bool(entry.get("ignore")))
        integers.extend((numbers[box_id], index, label, *flags))
        floats.extend((x, y, w, h, entry.get("area") or abs(w * h)))
    boxes = _build_sorted(integers, floats)
    _report_duplicate_ids(boxes, images, {number: box_id for box_id, number in numbers.items()}, issues)
    return _drop_repeated(boxes)


def _find_image(
    entry: Any,
    number: int,
    box_id: Id | None,
    numbers: dict[Id, int],
    index_by_id: dict[Id, int],
    images: tuple[CocoImage, ...],
    issues: IssueCollector,
) -> int:
    """Return the index of the annotation's image; if it has no valid image, NO_IMAGE.

    Adds an issue unless the image's own entry already has one.
    """
    if not isinstance(entry, dict):
        issues.add("annotation_invalid", f"Entry {number} of `annotations` is not an object.")
        return NO_IMAGE
    image_id = read_id(entry.get("image_id"))
    listed = match_id(image_id, index_by_id)  # VIA writes "0" for 0
    index = None if listed is None else index_by_id[listed]
    if box_id is None:
        listed_id = None if index in (None, NO_IMAGE) else images[index].id
        text = f"Entry {number} of `annotations` has no `id`, an integer or a text."
        issues.add("annotation_invalid", text, image_id=listed_id)
        return NO_IMAGE
    if index is None:
        text = f"Box {printable(box_id)} belongs to image {printable(entry.get('image_id'))}, which is not listed."
        issues.add("image_unknown", text, annotation_id=numbers[box_id])
        return NO_IMAGE
    return index


def _add_issue(code: IssueCode, text: str, image: CocoImage, box_id: Id, number: int, issues: IssueCollector) -> None:
    message = f"{printable(image.file_name)}: box {printable(box_id)} {text}."
    issues.add(code, message, file=image.file_name, image_id=image.id, annotation_id=number)


def _find_label(entry: dict[str, Any], labels: dict[Id, int]) -> int:
    """Return the label of the annotation's category, or `_NO_LABEL`."""
    category_id = match_id(read_id(entry.get("category_id")), labels)
    return _NO_LABEL if category_id is None else labels[category_id]


def _find_box_error(entry: dict[str, Any], label: int) -> tuple[IssueCode, str] | None:
    if label == _NO_LABEL:
        return "category_unknown", f"has category {printable(entry.get('category_id'))}, which is not listed"
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        return "box_invalid", f"has `bbox` {printable(box)}, which is not four finite numbers"
    area = entry.get("area")
    if area is not None and not (is_finite(area) and area >= 0):
        return "box_invalid", f"has `area` {printable(area)}, which is not a number of at least 0"
    for flag in ("iscrowd", "ignore"):
        if entry.get(flag) not in (None, 0, 1):
            return "box_invalid", f"has `{flag}` {printable(entry[flag])}, which is neither 0 nor 1"
    return None


def _build_sorted(integers: "array[int]", floats: "array[float]") -> Boxes:
    columns = np.array(integers, dtype=np.int64).reshape(-1, 5)
    xywh_area = np.array(floats, dtype=np.float64).reshape(-1, 5)
    order = np.argsort(columns[:, 1], kind="stable")
    ids, image, label, crowd, ignored = (column[order] for column in columns.T)
    return Boxes(
        id=ids,
        image=image.astype(np.int32),
        label=label.astype(np.int32),
        xywh=xywh_area[order, :4],
        area=xywh_area[order, 4],
        crowd=crowd.astype(np.bool_),
        ignored=ignored.astype(np.bool_),
    )


def _report_duplicate_ids(
    boxes: Boxes, images: tuple[CocoImage, ...], ids: dict[int, Id], issues: IssueCollector
) -> None:
    """Add an issue for each box whose id an earlier box has; `ids` maps numbers to the ids in the file."""
    order = np.argsort(boxes.id, kind="stable")
    repeated = np.sort(order[1:][boxes.id[order][1:] == boxes.id[order][:-1]])
    for row in repeated:
        number, text = int(boxes.id[row]), f"[{format_box(boxes.xywh[row])}] has the id of another box"
        _add_issue("annotation_id_duplicate", text, images[boxes.image[row]], ids[number], number, issues)


def format_box(xywh: NDArray[np.float64]) -> str:
    """Return the four numbers of a box for a message."""
    return ", ".join(f"{value:.10g}" for value in xywh)


def _drop_repeated(boxes: Boxes) -> tuple[Boxes, int]:
    """Return the boxes that equal no earlier box but for id and area, and the number of the others.

    Empty boxes are kept, because each is an issue.
    """
    columns = [boxes.image, boxes.label, *boxes.xywh.T, boxes.crowd, boxes.ignored]
    order = np.lexsort(columns)  # stable: the first of equal boxes comes first
    order = order[(boxes.xywh[order, 2:] > 0).all(axis=1)]
    equal = np.all([column[order[1:]] == column[order[:-1]] for column in columns], axis=0)
    repeated = order[1:][equal]
    return boxes.take(np.setdiff1d(np.arange(len(boxes)), repeated)), len(repeated)
