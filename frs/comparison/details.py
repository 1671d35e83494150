"""What each detector of a comparison gets right and wrong, as data for pictures: the artifact `details.json`."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from frs.comparison.pictures import precision_recall
from frs.comparison.pictures.side_by_side import MatchedDetections, right_minus_wrong
from frs.dataset.coco import CocoFile
from frs.evaluation.bootstrap import RECALLS
from frs.evaluation.matching import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE

MIN_SCORE = 0.05
"""Minimum score of a listed detection."""
MAX_DETECTIONS = 100
"""Maximum number of listed detections of a detector on one image."""
IMAGES_OF_A_KIND = 20
"""Number of images with the largest difference between two detectors, for each pair of detectors and direction."""
_OUTCOMES = {FALSE_POSITIVE: "wrong", TRUE_POSITIVE: "right", IGNORED: "ignored"}
_CURVES = {"0.50": 0, "0.75": 5}
"""Indices of the IoU thresholds of the curves."""
_PAIRS = (("teacher", "student"), ("baseline", "student"), ("student", "baseline"))
"""Pairs (better, worse) that the images are selected by."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class DetectedBox(_Part):
    """A detection."""

    bbox: tuple[float, float, float, float]
    """x, y, width and height in pixels."""
    category: str
    """Class name."""
    score: float
    outcome: str
    """`right`, `wrong`, or `ignored` if it matches a crowd; at IoU 0.5."""


class ObjectBox(_Part):
    """An object of the ground truth."""

    bbox: tuple[float, float, float, float]
    """x, y, width and height in pixels."""
    category: str
    """Class name."""
    crowd: bool
    """Whether it is a crowd or an ignored object."""


class ImageDetails(_Part):
    """One image with its objects and all detections on it."""

    id: int
    """Id in the annotation file."""
    file_name: str
    width: int
    height: int
    objects: list[ObjectBox]
    """Objects of the ground truth."""
    detections: dict[str, list[DetectedBox]]
    """By role, by descending score."""
    balance: dict[str, int]
    """By role: right minus wrong detections with a score of at least 0.3 at IoU 0.5."""


class PrecisionRecall(_Part):
    """Precision-recall curves of one detector."""

    mean: list[float]
    """Precision at each recall level, mean over the classes."""
    per_class: dict[str, list[float]]
    """Precision at each recall level by class name."""


class Details(_Part):
    """What each detector gets right and wrong. With several seeds, student and baseline are those of the first."""

    classes: tuple[str, ...]
    recalls: list[float]
    """Recall levels of the curves."""
    curves: dict[str, dict[str, PrecisionRecall]]
    """By IoU threshold, then by role."""
    confusion: dict[str, list[tuple[int, int, int]]]
    """By role: (class of the object, class of the detection, count) as indices into `classes`; their number stands for
    the background. Detections with a score of at least 0.3, at IoU 0.5; entries of 0 are omitted."""
    images: list[ImageDetails]
    """The 20 images on which the teacher exceeds the student most by `balance`, and those on which student and baseline
    differ most, in both directions."""


def build(
    truth: CocoFile,
    images: NDArray[np.int64],
    matched: Mapping[str, MatchedDetections],
    confusion: Mapping[str, NDArray[np.int64]],
) -> Details:
    """Return the details. `images` (I,) are the ids of the images that the matches are on.

    `matched` and `confusion`, the matrices of `frs.evaluation.confusion`, are by role.
    """
    balances = {role: right_minus_wrong(detector.matches) for role, detector in matched.items()}
    index_of_id = {image.id: index for index, image in enumerate(truth.images)}
    return Details(
        classes=truth.classes,
        recalls=[round(float(recall), 2) for recall in RECALLS],
        curves={name: {role: _curves(of, index) for role, of in matched.items()} for name, index in _CURVES.items()},
        confusion={role: _sparse(counts) for role, counts in confusion.items()},
        images=[
            _image_details(truth, index_of_id[int(images[position])], position, matched, balances)
            for position in select_images(balances)
        ],
    )


def select_images(balances: Mapping[str, NDArray[np.float64]]) -> list[int]:
    """Return the positions of the images on which one detector of a pair exceeds the other most, without repetition."""
    selected = dict[int, None]()
    for better, worse in _PAIRS:
        if better in balances and worse in balances:
            lead = balances[better] - balances[worse]
            order = np.argsort(-lead, kind="stable")[:IMAGES_OF_A_KIND]
            selected |= dict.fromkeys(int(position) for position in order if lead[position] > 0)
    return list(selected)


def _curves(detector: MatchedDetections, threshold: int) -> PrecisionRecall:
    with_objects = [matches for matches in detector.matches if matches.objects[:, 0].sum()]
    return PrecisionRecall(
        mean=_rounded(precision_recall.precision_at(detector.matches, threshold)),
        per_class={m.name: _rounded(precision_recall.precision_at([m], threshold)) for m in with_objects},
    )


def _image_details(
    truth: CocoFile,
    index: int,
    position: int,
    matched: Mapping[str, MatchedDetections],
    balances: Mapping[str, NDArray[np.float64]],
) -> ImageDetails:
    """Return one image. `index` is its index in the annotation file, `position` its index in the matches."""
    image, boxes = truth.images[index], truth.boxes_of(index)
    columns = zip(boxes.xywh, boxes.label, boxes.optional, strict=True)
    return ImageDetails(
        id=image.id,
        file_name=image.file_name,
        width=image.width,
        height=image.height,
        objects=[
            ObjectBox(bbox=_bbox(box), category=truth.classes[int(label)], crowd=bool(crowd))
            for box, label, crowd in columns
        ],
        detections={role: _detections(detector, position) for role, detector in matched.items()},
        balance={role: int(balance[position]) for role, balance in balances.items()},
    )


def _detections(detector: MatchedDetections, position: int) -> list[DetectedBox]:
    found = [
        DetectedBox(
            bbox=_bbox(detector.rows[matches.row[number], 1:5]),
            category=matches.name,
            score=round(float(matches.score[number]), 3),
            outcome=_OUTCOMES[int(matches.outcome[number, 0, 0])],
        )
        for matches in detector.matches
        for number in np.flatnonzero((matches.image == position) & (matches.score >= MIN_SCORE))
    ]
    return sorted(found, key=lambda box: -box.score)[:MAX_DETECTIONS]


def _bbox(box: NDArray[np.float64]) -> tuple[float, float, float, float]:
    x, y, width, height = (round(float(value), 1) for value in box)
    return x, y, width, height


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) for value in values]


def _sparse(counts: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    return [(int(row), int(column), int(counts[row, column])) for row, column in np.argwhere(counts)]
