"""Confusion matrix of a detector: which classes it takes for which, what it misses and what it invents.

Matching differs from COCO's: detections match objects of any class, greedily by descending score, each to the unmatched
object with the highest IoU, as in mmdetection's `tools/analysis_tools/confusion_matrix.py`.
"""

import numpy as np
from faster_coco_eval.core import mask
from numpy.typing import NDArray

from frs.dataset.coco import CocoFile
from frs.evaluation.detections import Rows

MIN_SCORE = 0.3
"""Minimum score of a counted detection."""
MIN_IOU = 0.5
"""Minimum IoU of a match."""


def confusion_matrix(truth: CocoFile, rows: Rows, images: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the counts, (K + 1, K + 1): row = class of the object, column = class of the detection.

    The last row counts detections without an object, the last column objects without a detection. Detections that match
    a crowd or an ignored object are not counted. `images` (I,) are the ids of the evaluated images.
    """
    background = len(truth.classes)
    counts = np.zeros((background + 1, background + 1), np.int64)
    rows = rows[rows[:, 5] >= MIN_SCORE]
    rows = rows[np.lexsort((-rows[:, 5], rows[:, 0]))]
    index_of_id = {image.id: index for index, image in enumerate(truth.images)}
    for image_id in images:
        boxes = truth.boxes_of(index_of_id[int(image_id)])
        start, stop = np.searchsorted(rows[:, 0], [image_id, image_id + 1])
        detected = np.append(rows[start:stop, 6].astype(np.int64), background)
        labels = np.append(boxes.label, background)
        matched = _match(rows[start:stop, 1:5], boxes.xywh, boxes.optional)
        counted = ~boxes.optional[matched] | (matched < 0) if len(boxes) else np.ones(len(matched), bool)
        np.add.at(counts, (labels[matched[counted]], detected[:-1][counted]), 1)
        missed = np.setdiff1d(np.flatnonzero(~boxes.optional), matched)
        counts[:, background] += np.bincount(labels[missed], minlength=background + 1)
    return counts


def _match(
    detections: NDArray[np.float64], boxes: NDArray[np.float64], optional: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Return for each detection, by descending score, the index of its object; -1 without one. Crowds match often."""
    matched = np.full(len(detections), -1, np.intp)
    if not len(detections) or not len(boxes):
        return matched
    overlaps = np.asarray(mask.iou(detections.tolist(), boxes.tolist(), optional.astype(int).tolist()))
    free = np.ones(len(boxes), bool)
    for number, overlap in enumerate(overlaps):
        candidates = np.where(free & (overlap >= MIN_IOU), overlap - optional, -np.inf)  # objects precede crowds
        best = int(candidates.argmax())
        if np.isfinite(candidates[best]):
            matched[number], free[best] = best, optional[best]
    return matched
