"""Which detections are right, image by image: COCO's greedy matching at all thresholds and sizes at once.

faster-coco-eval keeps its own matches inside compiled code, so they are made here once more, from its overlaps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from faster_coco_eval.core import mask
from numpy.typing import NDArray

from frs.dataset.coco import CocoFile
from frs.evaluation.detections import Rows

THRESHOLDS = np.linspace(0.5, 0.95, 10)
SIZES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
"""Least and greatest area of all, small, medium and large objects, in square pixels."""
MOST = 100
"""Detections of one class on one image that count: the highest scores."""
MISSED, FOUND, IGNORED = 0, 1, 2
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """One class on all images; D detections by falling score, I images."""

    name: str
    row: NDArray[np.intp]
    """(D,) place of each detection among the rows."""
    image: NDArray[np.intp]
    """(D,) place of each detection's image among the images."""
    score: NDArray[np.float64]
    outcome: NDArray[np.int8]
    """(D, sizes, thresholds): MISSED, FOUND or IGNORED, as a match with a crowd or out of size is."""
    objects: NDArray[np.int64]
    """(I, sizes) objects to find on each image."""


def match(
    truth: CocoFile, rows: Rows, images: NDArray[np.int64], tick: Callable[[int, int], None]
) -> list[ClassMatches]:
    """Matches of every class over the images of these ids (ascending); `tick(done, classes)`."""
    places = {image.id: index for index, image in enumerate(truth.images)}
    indices = np.array([places[int(identity)] for identity in images])
    found = []
    for label, name in enumerate(truth.classes):
        own = np.flatnonzero(rows[:, 6] == label)
        found.append(_of_class(truth, rows, own, label, name, images, indices))
        tick(label + 1, len(truth.classes))
    return found


def _of_class(
    truth: CocoFile,
    rows: Rows,
    own: NDArray[np.intp],
    label: int,
    name: str,
    images: NDArray[np.int64],
    indices: NDArray[np.intp],
) -> ClassMatches:
    place = np.searchsorted(images, rows[own, 0].astype(np.int64))
    order = np.lexsort((-rows[own, 5], place))  # by image, there by falling score; equal ones keep their order
    own, place = own[order], place[order]
    rows = rows[own]
    ends = np.searchsorted(place, np.arange(len(images) + 1))
    kept = np.arange(len(rows)) - ends[place] < MOST
    outcome = np.empty((len(rows), len(SIZES), len(THRESHOLDS)), np.int8)
    objects = np.zeros((len(images), len(SIZES)), np.int64)
    for i, index in enumerate(indices):
        boxes = truth.boxes_of(int(index))
        boxes = boxes.take(np.flatnonzero(boxes.label == label))
        ignored = boxes.crowd | _out_of_size(boxes.area)
        objects[i] = (~ignored).sum(axis=1)
        here = slice(ends[i], min(ends[i + 1], ends[i] + MOST))
        outcome[here] = _of_image(rows[here, 1:5], boxes.xywh, boxes.crowd, ignored)
    kept = np.flatnonzero(kept)[np.argsort(-rows[kept, 5], kind="stable")]
    return ClassMatches(name, own[kept], place[kept], rows[kept, 5], outcome[kept], objects)


def _of_image(found: Rows, boxes: NDArray[np.float64], crowd: Flags, ignored: Flags) -> NDArray[np.int8]:
    """(D, sizes, thresholds) outcomes of detections by falling score; `ignored`: (sizes, objects)."""
    outcome = np.empty((len(found), len(SIZES), len(THRESHOLDS)), np.int8)
    outcome[:] = np.where(_out_of_size(found[:, 2] * found[:, 3]).T, IGNORED, MISSED)[..., None]
    if not len(found) or not len(boxes):
        return outcome
    overlaps = np.asarray(mask.iou(found.tolist(), boxes.tolist(), crowd.astype(int).tolist()))
    free = np.ones((len(SIZES), len(THRESHOLDS), len(boxes)), bool)
    for number in np.flatnonzero(overlaps.max(axis=1) >= THRESHOLDS[0] - 1e-9):
        _take_best(overlaps[number], free, crowd, ignored, outcome[number])
    return outcome


def _take_best(
    overlap: NDArray[np.float64], free: Flags, crowd: Flags, ignored: Flags, outcome: NDArray[np.int8]
) -> None:
    """The free object of largest overlap, the last of equals, before any that is ignored; a crowd is always free."""
    reach = free & (overlap >= np.minimum(THRESHOLDS, 1 - 1e-10)[:, None])
    wanted = reach & ~ignored[:, None]
    reach = np.where(wanted.any(axis=-1, keepdims=True), wanted, reach)
    best = len(overlap) - 1 - np.where(reach, overlap, -1.0)[..., ::-1].argmax(axis=-1)
    size, threshold = np.nonzero(reach.any(axis=-1))
    taken = best[size, threshold]
    free[size, threshold, taken] = crowd[taken]
    outcome[size, threshold] = np.where(ignored[size, taken], IGNORED, FOUND)


def _out_of_size(area: NDArray[np.float64]) -> Flags:
    """(sizes, boxes)"""
    return (area < SIZES[:, :1]) | (area > SIZES[:, 1:])
