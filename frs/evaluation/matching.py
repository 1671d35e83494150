"""Matching of detections and objects: COCO's greedy algorithm, at all IoU thresholds and object sizes at once.

faster-coco-eval does not expose its matches, so they are computed here again, from the IoUs of the same library.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from faster_coco_eval.core import mask
from numpy.typing import NDArray

from frs.dataset.coco import CocoFile
from frs.evaluation.detections import Rows
from frs.spec import MAX_DETECTIONS

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""(10,): IoU thresholds."""
SIZES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
"""(4, 2): minimum and maximum area of all, small, medium and large objects, in square pixels."""
FALSE_POSITIVE, TRUE_POSITIVE, IGNORED = 0, 1, 2
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """The matches of one class: D detections by descending score, on I images."""

    name: str
    """Class name."""
    row: NDArray[np.intp]
    """(D,): index of each detection among all rows."""
    image: NDArray[np.intp]
    """(D,): index of each detection's image among the images."""
    score: NDArray[np.float64]
    """(D,): score of each detection."""
    outcome: NDArray[np.int8]
    """(D, sizes, thresholds): FALSE_POSITIVE, TRUE_POSITIVE or IGNORED.

    A detection is ignored if it matches a crowd or an object of another size, or if it has no match and another size.
    """
    objects: NDArray[np.int64]
    """(I, sizes): number of objects to detect on each image."""


def match(
    truth: CocoFile,
    rows: Rows,
    images: NDArray[np.int64],
    progress: Callable[[int, int], None],
    max_detections: int = MAX_DETECTIONS,
) -> list[ClassMatches]:
    """Return the matches of every class on the images with the ascending ids `images` (I,).

    Of each class and image the `max_detections` with the highest scores count. `progress(done, classes)` is called
    after each class.
    """
    index_of_id = {image.id: index for index, image in enumerate(truth.images)}
    indices = np.array([index_of_id[int(image_id)] for image_id in images])
    matches = []
    for label, name in enumerate(truth.classes):
        of_class = np.flatnonzero(rows[:, 6] == label)
        matches.append(_match_class(truth, rows, of_class, label, name, images, indices, max_detections))
        progress(label + 1, len(truth.classes))
    return matches


def _match_class(
    truth: CocoFile,
    rows: Rows,
    of_class: NDArray[np.intp],
    label: int,
    name: str,
    images: NDArray[np.int64],
    indices: NDArray[np.intp],
    max_detections: int,
) -> ClassMatches:
    """Match the rows `of_class`; `indices` (I,) are the indices of `images` in the annotation file."""
    image = np.searchsorted(images, rows[of_class, 0].astype(np.int64))
    order = np.lexsort((-rows[of_class, 5], image))  # by image, then by descending score; ties keep their order
    of_class, image = of_class[order], image[order]
    rows = rows[of_class]
    starts = np.searchsorted(image, np.arange(len(images) + 1))
    within_limit = np.arange(len(rows)) - starts[image] < max_detections
    outcome = np.empty((len(rows), len(SIZES), len(THRESHOLDS)), np.int8)
    objects = np.zeros((len(images), len(SIZES)), np.int64)
    for i, index in enumerate(indices):
        boxes = truth.boxes_of(int(index))
        boxes = boxes.take(np.flatnonzero(boxes.label == label))
        ignored = boxes.optional | _other_size(boxes.area)
        objects[i] = (~ignored).sum(axis=1)
        on_image = slice(starts[i], min(starts[i + 1], starts[i] + max_detections))
        outcome[on_image] = _match_image(rows[on_image, 1:5], boxes.xywh, boxes.optional, ignored)
    kept = np.flatnonzero(within_limit)[np.argsort(-rows[within_limit, 5], kind="stable")]
    return ClassMatches(name, of_class[kept], image[kept], rows[kept, 5], outcome[kept], objects)


def _match_image(
    detections: NDArray[np.float64], boxes: NDArray[np.float64], crowd: Flags, ignored: Flags
) -> NDArray[np.int8]:
    """Return the outcomes of one image's detections, (D, sizes, thresholds).

    `detections` (D, 4) are boxes by descending score, `boxes` (objects, 4), both x, y, width, height; `crowd` is
    (objects,) and `ignored` is (sizes, objects).
    """
    outcome = np.empty((len(detections), len(SIZES), len(THRESHOLDS)), np.int8)
    other_size = _other_size(detections[:, 2] * detections[:, 3])
    outcome[:] = np.where(other_size.T, IGNORED, FALSE_POSITIVE)[..., None]
    if not len(detections) or not len(boxes):
        return outcome
    overlaps = np.asarray(mask.iou(detections.tolist(), boxes.tolist(), crowd.astype(int).tolist()))
    unmatched = np.ones((len(SIZES), len(THRESHOLDS), len(boxes)), bool)
    for number in np.flatnonzero(overlaps.max(axis=1) >= THRESHOLDS[0] - 1e-9):
        _match_detection(overlaps[number], unmatched, crowd, ignored, outcome[number])
    return outcome


def _match_detection(
    overlap: NDArray[np.float64], unmatched: Flags, crowd: Flags, ignored: Flags, outcome: NDArray[np.int8]
) -> None:
    """Match one detection to the unmatched object with the highest IoU; on ties, to the last.

    Objects that are not ignored take precedence, and a crowd can be matched any number of times. `overlap` (objects,)
    is the IoU with each object; `unmatched` (sizes, thresholds, objects) and `outcome` (sizes, thresholds) are updated.
    """
    candidates = unmatched & (overlap >= np.minimum(THRESHOLDS, 1 - 1e-10)[:, None])
    preferred = candidates & ~ignored[:, None]
    candidates = np.where(preferred.any(axis=-1, keepdims=True), preferred, candidates)
    best = len(overlap) - 1 - np.where(candidates, overlap, -1.0)[..., ::-1].argmax(axis=-1)
    size, threshold = np.nonzero(candidates.any(axis=-1))
    matched = best[size, threshold]
    unmatched[size, threshold, matched] = crowd[matched]
    outcome[size, threshold] = np.where(ignored[size, matched], IGNORED, TRUE_POSITIVE)


def _other_size(area: NDArray[np.float64]) -> Flags:
    """Return whether each area is outside each size's range: (boxes,) -> (sizes, boxes)."""
    return (area < SIZES[:, :1]) | (area > SIZES[:, 1:])
