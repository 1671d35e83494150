"""What a detector found on the validation split, kept so that detectors can be compared image by image later."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frs.errors import DetectionsUnusable

Rows = NDArray[np.float64]
"""(image id, x, y, width, height, score, label), as from `frs.evaluation.coco_scores.detect`."""
_COLUMNS = {"image": np.int64, "corners": np.float32, "score": np.float32, "label": np.int32}
_FACTS = {"images": np.int64, "classes": np.str_, "annotations_sha256": np.str_}


@dataclass(frozen=True, eq=False)
class Detections:
    rows: Rows
    images: NDArray[np.int64]
    """Ids of the images that were looked at, ascending; also those without any detection."""
    classes: tuple[str, ...]
    annotations_sha256: str
    """Of the annotation file the image ids and labels refer to."""


def pack(found: Detections) -> bytes:
    """An .npz of plain arrays. Corners in float32 are the detector's own numbers: nothing is lost."""
    boxes = found.rows[:, 1:5]
    columns = {
        "image": found.rows[:, 0],
        "corners": np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]),
        "score": found.rows[:, 5],
        "label": found.rows[:, 6],
    }
    facts = {"images": found.images, "classes": list(found.classes), "annotations_sha256": found.annotations_sha256}
    arrays = {name: np.asarray(values, dtype=(_COLUMNS | _FACTS)[name]) for name, values in (columns | facts).items()}
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


def read(path: Path) -> Detections:
    """Raises DetectionsUnusable for whatever `pack` would not have written."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _COLUMNS | _FACTS}
    except Exception as error:  # whatever a hostile file makes the reader raise
        raise DetectionsUnusable(f"{path.name} holds no detections: {type(error).__name__}.") from None
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise DetectionsUnusable(f"{path.name} holds other things than arrays.")
    _check(arrays, path.name)
    corners = arrays["corners"].astype(np.float64)
    columns = [arrays["image"], corners[:, :2], corners[:, 2:] - corners[:, :2], arrays["score"], arrays["label"]]
    rows = np.column_stack([column.astype(np.float64) for column in columns])
    classes = tuple(map(str, arrays["classes"]))
    return Detections(rows, arrays["images"], classes, str(arrays["annotations_sha256"]))


def _check(arrays: dict[str, NDArray[np.generic]], name: str) -> None:
    count = arrays["image"].shape[:1]
    shapes = {"image": count, "corners": (*count, 4), "score": count, "label": count, "annotations_sha256": ()}
    if any(arrays[key].shape != shape for key, shape in shapes.items()) or len(count) != 1:
        raise DetectionsUnusable(f"{name} has columns that do not fit together.")
    if any(not np.issubdtype(arrays[key].dtype, kind) for key, kind in (_COLUMNS | _FACTS).items()):
        raise DetectionsUnusable(f"{name} has columns of another type.")
    if not (np.isfinite(arrays["corners"]).all() and np.isfinite(arrays["score"]).all()):
        raise DetectionsUnusable(f"{name} holds numbers that are not finite.")
    label, classes = arrays["label"], arrays["classes"]
    if label.size and (label.min() < 0 or label.max() >= len(classes)):
        raise DetectionsUnusable(f"{name} has labels without a class.")
    if not np.isin(arrays["image"], arrays["images"]).all():
        raise DetectionsUnusable(f"{name} has detections on images it does not list.")
