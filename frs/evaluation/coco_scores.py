"""COCO evaluation with faster-coco-eval: the six numbers and per-class AP, at full precision."""

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

ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class Scores:
    metrics: dict[str, float | None]
    """The six numbers by mmdet's names, 0 to 1; null for a size without objects."""
    per_class: dict[str, float | None]
    images: int
    detections: int

    @property
    def mAP(self) -> float:
        return self.metrics["bbox_mAP"] or 0.0


@torch.no_grad()
def detect(detector: Detector, batches: DataLoader[Any], tick: ProgressCallback) -> NDArray[np.float64]:
    """Detections of a detector as rows (image id, x, y, width, height, score, label), in pixels of the original image.

    `tick(done, batches)` is called after each batch.
    """
    detector.eval()
    rows = [np.zeros((0, 7))]
    for done, batch in enumerate(batches, 1):
        tick(done, len(batches))
        for sample in detector.test_step(batch):
            found = sample.pred_instances
            boxes = found.bboxes.cpu().numpy().astype(np.float64)
            boxes[:, 2:] -= boxes[:, :2]
            image = np.full((len(boxes), 1), sample.img_id)
            rows.append(
                np.hstack([image, boxes, found.scores.cpu().numpy()[:, None], found.labels.cpu().numpy()[:, None]])
            )
    return np.concatenate(rows)


def score(detections: NDArray[np.float64], truth: CocoFile, images: Iterable[int] | None = None) -> Scores:
    """COCO metrics of detections (rows as from `detect`) against `truth`, over the images of these ids or all of them.

    No detections score 0.
    """
    evaluation = evaluated(detections, truth, images)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # thresholds, recalls, classes
    return Scores(
        metrics=dict(zip(NAMES, map(_absent_is_null, evaluation.stats[:6]), strict=True)),
        per_class={name: _mean(precision[:, :, k]) for k, name in enumerate(truth.classes)},
        images=len(evaluation.params.imgIds),
        detections=len(detections),
    )


def evaluated(detections: NDArray[np.float64], truth: CocoFile, images: Iterable[int] | None = None) -> COCOeval_faster:
    """COCO's own evaluation after its run: `stats` are its twelve numbers, -1 for what there is none of."""
    results = detections.copy()
    results[:, 6] = np.asarray(truth.category_ids)[detections[:, 6].astype(int)]
    with _uncollected():
        known = COCO(_as_coco(truth))
        evaluation = COCOeval_faster(known, known.loadRes(results), "bbox", print_function=_silent)
        if images is not None:
            evaluation.params.imgIds = sorted(images)
        evaluation.run()
    return evaluation


@contextmanager
def _uncollected() -> Iterator[None]:
    """COCO's code makes a dictionary of every box; looking through them for cycles takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _as_coco(truth: CocoFile) -> dict[str, Any]:
    """What evaluation needs of an annotation file, with an area for every box and ids from 1: COCO's code takes a match
    with id 0 for none, and mixes up boxes of one id.
    """
    boxes = truth.boxes
    columns = (column.tolist() for column in (boxes.image, boxes.label, boxes.xywh, boxes.area, boxes.crowd))
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
                "iscrowd": int(crowd),
            }
            for number, (image, label, box, area, crowd) in enumerate(zip(*columns, strict=True), 1)
        ],
    }


def _silent(*_: object) -> None:
    pass


def _absent_is_null(value: float) -> float | None:
    return None if value < 0 or np.isnan(value) else float(value)


def _mean(precision: NDArray[np.float64]) -> float | None:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else None
