"""Boxes of a COCO annotation file, as columns."""

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frs.dataset.coco_images import NO_IMAGE, CocoImage
from frs.dataset.fields import is_finite, is_id
from frs.dataset.issues import IssueCode, IssueCollector, printable


@dataclass(frozen=True, eq=False, slots=True)
class Boxes:
    """Table of N boxes: one row a box, one array of length N a column."""

    id: NDArray[np.int64]
    """(N,): annotation id."""
    image: NDArray[np.int32]
    """(N,): index into `CocoFile.images`."""
    label: NDArray[np.int32]
    """(N,): index into `CocoFile.classes`."""
    xywh: NDArray[np.float64]
    """(N, 4): left, top, width, height in pixels."""
    area: NDArray[np.float64]
    """(N,): area in square pixels, as annotated; width x height if the file has none."""
    crowd: NDArray[np.bool_]
    """(N,): whether the box marks a crowd (`iscrowd`)."""

    def __len__(self) -> int:
        return len(self.id)

    def take(self, rows: slice | NDArray[np.int64]) -> "Boxes":
        """Return the selected rows; a slice gives array views."""
        return Boxes(
            self.id[rows], self.image[rows], self.label[rows], self.xywh[rows], self.area[rows], self.crowd[rows]
        )


def read_boxes(
    entries: list[Any],
    images: tuple[CocoImage, ...],
    index_by_id: dict[int, int],
    category_ids: list[int],
    issues: IssueCollector,
) -> Boxes:
    """Return the valid boxes of the file's `annotations`, sorted by image; add an issue for every invalid entry.

    `index_by_id` maps each image id to its index in `images`, as `read_images` returns it.
    """
    labels = {category_id: label for label, category_id in enumerate(category_ids)}
    integers, floats = array("q"), array("d")  # id, image, label, crowd; x, y, w, h, area
    for number, entry in enumerate(entries):
        index = _find_image(entry, number, index_by_id, issues)
        if index == NO_IMAGE:
            continue
        if reason := _find_box_error(entry, labels):
            code, text = reason
            image = images[index]
            message = f"{printable(image.file_name)}: box {entry['id']} {text}."
            issues.add(code, message, file=image.file_name, image_id=image.id, annotation_id=entry["id"])
            continue
        x, y, w, h = entry["bbox"]
        integers.extend((entry["id"], index, labels[entry["category_id"]], int(entry.get("iscrowd", 0))))
        floats.extend((x, y, w, h, entry["area"] if "area" in entry else abs(w * h)))
    return _build_sorted(integers, floats)


def _find_image(entry: Any, number: int, index_by_id: dict[int, int], issues: IssueCollector) -> int:
    """Return the index of the annotation's image; if it has no valid image, NO_IMAGE.

    Adds an issue unless the image's own entry already has one.
    """
    if not isinstance(entry, dict):
        issues.add("annotation_invalid", f"Entry {number} of `annotations` is not an object.")
        return NO_IMAGE
    annotation_id, image_id = entry.get("id"), entry.get("image_id")
    image_id = image_id if is_id(image_id) else None
    if not is_id(annotation_id):
        listed_id = image_id if image_id in index_by_id else None
        issues.add("annotation_invalid", f"Entry {number} of `annotations` has no integer `id`.", image_id=listed_id)
        return NO_IMAGE
    if image_id is None or image_id not in index_by_id:
        text = f"Box {annotation_id} belongs to image {printable(entry.get('image_id'))}, which is not listed."
        issues.add("image_unknown", text, annotation_id=annotation_id)
        return NO_IMAGE
    return index_by_id[image_id]


def _find_box_error(entry: dict[str, Any], labels: dict[int, int]) -> tuple[IssueCode, str] | None:
    category_id = entry.get("category_id")
    if not is_id(category_id) or category_id not in labels:
        return "category_unknown", f"has category {printable(category_id)}, which is not listed"
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        return "box_invalid", f"has `bbox` {printable(box)}, which is not four finite numbers"
    if "area" in entry and not (is_finite(entry["area"]) and entry["area"] >= 0):
        return "box_invalid", f"has `area` {printable(entry['area'])}, which is not a number of at least 0"
    if entry.get("iscrowd", 0) not in (0, 1):
        return "box_invalid", f"has `iscrowd` {printable(entry['iscrowd'])}, which is neither 0 nor 1"
    return None


def _build_sorted(integers: "array[int]", floats: "array[float]") -> Boxes:
    id_image_label_crowd = np.array(integers, dtype=np.int64).reshape(-1, 4)
    xywh_area = np.array(floats, dtype=np.float64).reshape(-1, 5)
    order = np.argsort(id_image_label_crowd[:, 1], kind="stable")
    ids, image, label, crowd = (column[order] for column in id_image_label_crowd.T)
    return Boxes(
        id=ids,
        image=image.astype(np.int32),
        label=label.astype(np.int32),
        xywh=xywh_area[order, :4],
        area=xywh_area[order, 4],
        crowd=crowd.astype(np.bool_),
    )
