"""COCO evaluation with faster-coco-eval: the six COCO metrics and the AP of each class, not rounded."""

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from frs.dataset.coco import CocoFile
from frs.detectors.heads import Detector
from frs.evaluation.report import NAMES
from frs.spec import MAX_DETECTIONS

ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class Scores:
    """COCO metrics of one detector."""

    metrics: dict[str, float | None]
    """The six COCO metrics by mmdet's names, 0 to 1; None for a size without objects."""
    per_class: dict[str, float | None]
    """mAP of each class, 0 to 1; None for a class without objects."""
    images: int
    """Number of evaluated images."""
    detections: int
    """Number of detections."""

    @property
    def mAP(self) -> float:
        """Box mAP, 0 to 1; 0 if there are no objects."""
        return self.metrics["bbox_mAP"] or 0.0


@torch.no_grad()
def detect(detector: Detector, batches: DataLoader[Any], progress: ProgressCallback) -> NDArray[np.float64]:
    """Return the detections as rows (image id, x, y, width, height, score, label): (detections, 7).

    Boxes are in pixels of the original image. `progress(done, batches)` is called for each batch.
    """
    detector.eval()
    rows = [np.zeros((0, 7))]
    for done, batch in enumerate(batches, 1):
        progress(done, len(batches))
        for sample in detector.test_step(batch):
            instances = sample.pred_instances
            boxes = instances.bboxes.cpu().numpy().astype(np.float64)
            boxes[:, 2:] -= boxes[:, :2]
            image = np.full((len(boxes), 1), sample.img_id)
            scores, labels = instances.scores.cpu().numpy()[:, None], instances.labels.cpu().numpy()[:, None]
            rows.append(np.hstack([image, boxes, scores, labels]))
    return np.concatenate(rows)


def detection_limits(max_detections: int) -> list[int]:
    """Return COCO's three limits on the detections of one class on an image, with `max_detections` as the last.

    The mAP has the last limit, also in mmdet's `FasterCocoMetric`.
    """
    return sorted({min(limit, max_detections) for limit in (1, 10, max_detections)})


def score(
    detections: NDArray[np.float64],
    truth: CocoFile,
    images: Iterable[int] | None = None,
    max_detections: int = MAX_DETECTIONS,
) -> Scores:
    """Return the COCO metrics of `detections` (rows as from `detect`) on the images with the ids `images` (None: all).

    Of each class and image the `max_detections` with the highest scores count. Without detections, every metric that
    has objects is 0.
    """
    evaluation = run_evaluation(detections, truth, images, max_detections)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (thresholds, recalls, classes)
    return Scores(
        metrics=dict(zip(NAMES, map(_none_if_undefined, evaluation.stats[:6]), strict=True)),
        per_class={name: _mean(precision[:, :, k]) for k, name in enumerate(truth.classes)},
        images=len(evaluation.params.imgIds),
        detections=len(detections),
    )


def run_evaluation(
    detections: NDArray[np.float64],
    truth: CocoFile,
    images: Iterable[int] | None = None,
    max_detections: int = MAX_DETECTIONS,
) -> COCOeval_faster:
    """Return a COCO evaluation after its run. Its `stats` are the twelve COCO metrics; -1 is undefined."""
    results = detections.copy()
    results[:, 6] = np.asarray(truth.category_ids)[detections[:, 6].astype(int)]
    with _garbage_collection_disabled():
        annotations = COCO(_to_coco(truth))
        evaluation = COCOeval_faster(annotations, annotations.loadRes(results), "bbox", print_function=_print_nothing)
        evaluation.params.maxDets = detection_limits(max_detections)
        if images is not None:
            evaluation.params.imgIds = sorted(images)
        evaluation.run()
    return evaluation


@contextmanager
def _garbage_collection_disabled() -> Iterator[None]:
    """Disable garbage collection: COCO's code creates a dictionary per box, and tracing them takes 1/3 of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _to_coco(truth: CocoFile) -> dict[str, Any]:
    """Return the annotations in COCO format, with an area for every box and ids from 1.

    COCO's code interprets id 0 as no match, and confuses boxes with equal ids.
    """
    boxes = truth.boxes
    columns = (column.tolist() for column in (boxes.image, boxes.label, boxes.xywh, boxes.area, boxes.optional))
    return {
        "categories": [{"id": i, "name": name} for i, name in zip(truth.category_ids, truth.classes, strict=True)],
        "images": [image._asdict() for image in truth.images],
        "annotations": [
            {
                "id": number,
                "image_id": truth.images[image].id,
                "category_id": truth.category_ids[label],
                "bbox": box,
                "area": area,
                "iscrowd": int(optional),
            }
            for number, (image, label, box, area, optional) in enumerate(zip(*columns, strict=True), 1)
        ],
    }


def _print_nothing(*_: object) -> None:
    pass


def _none_if_undefined(value: float) -> float | None:
    return None if value < 0 or np.isnan(value) else float(value)


def _mean(precision: NDArray[np.float64]) -> float | None:
    """Return the mean of the defined precisions (thresholds, recalls); None if there are none."""
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else None
