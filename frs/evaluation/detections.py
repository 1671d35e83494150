"""Files of a detector's detections on the validation split, for later comparisons image by image."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frs.errors import DetectionsUnusable

Rows = NDArray[np.float64]
"""(detections, 7): image id, x, y, width, height, score, label, as from `frs.evaluation.coco_scores.detect`."""
_COLUMNS = {"image": np.int64, "corners": np.float32, "score": np.float32, "label": np.int32}
_FACTS = {"images": np.int64, "classes": np.str_, "annotations_sha256": np.str_}


@dataclass(frozen=True, eq=False)
class Detections:
    """A detector's detections and the images they belong to."""

    rows: Rows
    images: NDArray[np.int64]
    """(images,): ids of the evaluated images, ascending, including images without detections."""
    classes: tuple[str, ...]
    """Class names in the order of the labels."""
    annotations_sha256: str
    """SHA-256 of the annotation file that image ids and labels refer to, lower-case hex."""


def pack(detections: Detections) -> bytes:
    """Return the detections as an .npz archive of plain arrays.

    Corners are stored in float32, the detector's own precision, so the round trip is exact.
    """
    boxes = detections.rows[:, 1:5]
    columns = {
        "image": detections.rows[:, 0],
        "corners": np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]),
        "score": detections.rows[:, 5],
        "label": detections.rows[:, 6],
    }
    facts = {
        "images": detections.images,
        "classes": list(detections.classes),
        "annotations_sha256": detections.annotations_sha256,
    }
    arrays = {name: np.asarray(values, dtype=(_COLUMNS | _FACTS)[name]) for name, values in (columns | facts).items()}
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


def read(path: Path) -> Detections:
    """Return the detections of a file from `pack`. Raise DetectionsUnusable for any other content."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _COLUMNS | _FACTS}
    except Exception as error:  # a hostile file can make the reader raise any exception
        raise DetectionsUnusable(f"{path.name} is not a file of detections: {type(error).__name__}.") from None
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise DetectionsUnusable(f"{path.name} has entries that are not arrays.")
    _check(arrays, path.name)
    corners = arrays["corners"].astype(np.float64)
    columns = [arrays["image"], corners[:, :2], corners[:, 2:] - corners[:, :2], arrays["score"], arrays["label"]]
    rows = np.column_stack([column.astype(np.float64) for column in columns])
    classes = tuple(map(str, arrays["classes"]))
    return Detections(rows, arrays["images"], classes, str(arrays["annotations_sha256"]))


def _check(arrays: dict[str, NDArray[np.generic]], name: str) -> None:
    """Raise DetectionsUnusable if shapes, types or values of the arrays are invalid."""
    count = arrays["image"].shape[:1]
    shapes = {"image": count, "corners": (*count, 4), "score": count, "label": count, "annotations_sha256": ()}
    if any(arrays[key].shape != shape for key, shape in shapes.items()) or len(count) != 1:
        raise DetectionsUnusable(f"{name} has columns of different lengths.")
    if any(not np.issubdtype(arrays[key].dtype, kind) for key, kind in (_COLUMNS | _FACTS).items()):
        raise DetectionsUnusable(f"{name} has columns of an unexpected type.")
    if not (np.isfinite(arrays["corners"]).all() and np.isfinite(arrays["score"]).all()):
        raise DetectionsUnusable(f"{name} has numbers that are not finite.")
    label, classes = arrays["label"], arrays["classes"]
    if label.size and (label.min() < 0 or label.max() >= len(classes)):
        raise DetectionsUnusable(f"{name} has labels without a class.")
    if not np.isin(arrays["image"], arrays["images"]).all():
        raise DetectionsUnusable(f"{name} has detections on images that it does not list.")
