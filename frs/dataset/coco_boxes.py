"""The boxes an annotation file holds, as columns."""

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frs.dataset.coco_images import UNPLACED, CocoImage
from frs.dataset.fields import is_finite, is_id
from frs.dataset.issues import IssueCode, IssueCollector, printable


@dataclass(frozen=True, eq=False, slots=True)
class Boxes:
    """Columns of equal length, one row a box; `image` and `label` are indices into images and classes."""

    id: NDArray[np.int64]
    image: NDArray[np.int32]
    label: NDArray[np.int32]
    xywh: NDArray[np.float64]
    """(N, 4): left, top, width, height in pixels."""
    area: NDArray[np.float64]
    crowd: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.id)

    def take(self, rows: slice | NDArray[np.int64]) -> "Boxes":
        return Boxes(
            self.id[rows], self.image[rows], self.label[rows], self.xywh[rows], self.area[rows], self.crowd[rows]
        )


def read_boxes(
    entries: list[Any],
    images: tuple[CocoImage, ...],
    places: dict[int, int],
    category_ids: list[int],
    found: IssueCollector,
) -> Boxes:
    labels = {category_id: label for label, category_id in enumerate(category_ids)}
    whole, real = array("q"), array("d")  # id, image, label, crowd; x, y, w, h, area
    for number, entry in enumerate(entries):
        place = _place(entry, number, places, found)
        if place == UNPLACED:
            continue
        if fault := _box_fault(entry, labels):
            code, text = fault
            image = images[place]
            message = f"{printable(image.file_name)}: box {entry['id']} {text}."
            found.add(code, message, file=image.file_name, image_id=image.id, annotation_id=entry["id"])
            continue
        x, y, w, h = entry["bbox"]
        whole.extend((entry["id"], place, labels[entry["category_id"]], int(entry.get("iscrowd", 0))))
        real.extend((x, y, w, h, entry["area"] if "area" in entry else abs(w * h)))
    return _sorted(whole, real)


def _place(entry: Any, number: int, places: dict[int, int], found: IssueCollector) -> int:
    """Index of the image an annotation belongs to; -1 where it has none, which is told to `found`."""
    if not isinstance(entry, dict):
        found.add("annotation_invalid", f"Entry {number} of `annotations` is not an object.")
        return UNPLACED
    annotation_id, image_id = entry.get("id"), entry.get("image_id")
    image_id = image_id if is_id(image_id) else None
    if not is_id(annotation_id):
        known = image_id if image_id in places else None
        found.add("annotation_invalid", f"Entry {number} of `annotations` has no whole number as `id`.", image_id=known)
        return UNPLACED
    if image_id is None or image_id not in places:
        text = f"Box {annotation_id} belongs to image {printable(entry.get('image_id'))}, which is not listed."
        found.add("image_unknown", text, annotation_id=annotation_id)
        return UNPLACED
    return places[image_id]


def _box_fault(entry: dict[str, Any], labels: dict[int, int]) -> tuple[IssueCode, str] | None:
    category_id = entry.get("category_id")
    if not is_id(category_id) or category_id not in labels:
        return "category_unknown", f"has category {printable(category_id)}, which is not listed"
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        return "box_invalid", f"has `bbox` {printable(box)}, which is not four finite numbers"
    if "area" in entry and not (is_finite(entry["area"]) and entry["area"] >= 0):
        return "box_invalid", f"has `area` {printable(entry['area'])}, which is no number of at least 0"
    if entry.get("iscrowd", 0) not in (0, 1):
        return "box_invalid", f"has `iscrowd` {printable(entry['iscrowd'])}, which is neither 0 nor 1"
    return None


def _sorted(whole: "array[int]", real: "array[float]") -> Boxes:
    id_image_label_crowd = np.array(whole, dtype=np.int64).reshape(-1, 4)
    xywh_area = np.array(real, dtype=np.float64).reshape(-1, 5)
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
