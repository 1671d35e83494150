"""COCO metrics under resampling of the images (bootstrap), computed for many resamples at once."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from frs.evaluation.matching import IGNORED, THRESHOLDS, TRUE_POSITIVE, ClassMatches
from frs.evaluation.report import NAMES
from frs.evaluation.verdict import Interval

RECALLS = np.linspace(0, 1, 101)
"""(101,): recall levels at which COCO samples the precision."""
LEVEL = 0.95
RESAMPLES = 1000
SEED = 0
_CELLS = 4_000_000
"""Maximum number of elements of the largest array: resamples x detections of one class."""
Multiplicities = NDArray[np.int64]
"""(resamples, images): how often each image occurs in each resample."""
Precisions = NDArray[np.float64]
"""(resamples, classes, sizes, thresholds): average precision; NaN for a class and size without objects."""


def point_estimate(matches: Sequence[ClassMatches]) -> Precisions:
    """Return the average precisions of the original images, (1, classes, sizes, thresholds)."""
    return average_precisions(matches, np.ones((1, len(matches[0].objects)), np.int64))


def draw_resamples(images: int, count: int = RESAMPLES, seed: int = SEED) -> Multiplicities:
    """Return `count` draws of `images` images with replacement, (count, images). Equal arguments give equal draws."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=count)


def average_precisions(
    matches: Sequence[ClassMatches],
    multiplicities: Multiplicities,
    progress: Callable[[int, int], None] | None = None,
) -> Precisions:
    """Return the average precisions of every resample.

    `progress(done, classes)` is called after each class.
    """
    precisions = np.full((len(multiplicities), len(matches), 4, len(THRESHOLDS)), np.nan)
    for k, class_matches in enumerate(matches):
        rows = max(1, _CELLS // max(1, len(class_matches.image)))
        for start in range(0, len(multiplicities), rows):
            chunk = slice(start, start + rows)
            precisions[chunk, k] = _class_average_precisions(class_matches, multiplicities[chunk])
        if progress:
            progress(k + 1, len(matches))
    return precisions


def coco_metrics(precisions: Precisions) -> dict[str, NDArray[np.float64]]:
    """Return the six COCO metrics by name, each (resamples,); NaN for a size without objects.

    Classes without objects are excluded from the means.
    """
    all_sizes = precisions[:, :, 0]
    selected = [all_sizes, all_sizes[..., :1], all_sizes[..., 5:6], *(precisions[:, :, size] for size in (1, 2, 3))]
    return {name: _mean(values) for name, values in zip(NAMES, selected, strict=True)}


def class_precisions(precisions: Precisions) -> list[float | None]:
    """Return the mAP of each class in the first resample; None for a class without objects."""
    return [None if np.isnan(values).any() else float(values.mean()) for values in precisions[0, :, 0]]


def interval(values: NDArray[np.float64], level: float = LEVEL) -> Interval | None:
    """Return the percentile interval of `values` (resamples,), without NaNs; None if all are NaN."""
    valid = values[~np.isnan(values)]
    if not valid.size:
        return None
    low, high = np.quantile(valid, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high))


def _class_average_precisions(matches: ClassMatches, multiplicities: Multiplicities) -> NDArray[np.float64]:
    """Return the average precisions of one class, (resamples, sizes, thresholds)."""
    precisions = np.full((len(multiplicities), 4, len(THRESHOLDS)), np.nan)
    objects = multiplicities @ matches.objects  # (resamples, sizes)
    counted = multiplicities[:, matches.image]  # (resamples, detections)
    cumulative = counted.cumsum(axis=1)
    for size in range(4):
        present = objects[:, size] > 0
        for threshold in range(len(THRESHOLDS) if present.any() else 0):
            outcome = matches.outcome[:, size, threshold]
            averages = _interpolated_average(outcome, counted, cumulative, objects[:, size])
            precisions[present, size, threshold] = averages[present]
    return precisions


def _interpolated_average(
    outcome: NDArray[np.int8], counted: Multiplicities, cumulative: Multiplicities, objects: Multiplicities
) -> NDArray[np.float64]:
    """Return the mean over the 101 recall levels of the highest precision at that recall or above, (resamples,).

    `outcome` is (detections,), `counted` and `cumulative` are (resamples, detections), `objects` is (resamples,).
    Precision peaks at true positives, so only these are evaluated; each accounts for the recall levels that it is the
    first to reach.
    """
    true_positives = np.flatnonzero(outcome == TRUE_POSITIVE)
    if not true_positives.size:
        return np.zeros(len(counted))
    hits = counted[:, true_positives].cumsum(axis=1)
    detections = cumulative[:, true_positives] - _ignored_before(outcome, counted, true_positives)
    precision = hits / np.maximum(detections, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(RECALLS, hits / np.maximum(objects, 1)[:, None], side="right")
    return (best * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS)


def _ignored_before(
    outcome: NDArray[np.int8], counted: Multiplicities, true_positives: NDArray[np.intp]
) -> Multiplicities | int:
    """Return the number of ignored detections before each true positive, (resamples, true positives)."""
    ignored = np.flatnonzero(outcome == IGNORED)
    if not ignored.size:
        return 0
    sums = np.pad(counted[:, ignored].cumsum(axis=1), ((0, 0), (1, 0)))
    return sums[:, np.searchsorted(ignored, true_positives)]


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over classes and thresholds without NaNs: (resamples, classes, thresholds) -> (resamples,)."""
    valid = ~np.isnan(values)
    count = valid.sum(axis=(1, 2))
    total = np.where(valid, values, 0.0).sum(axis=(1, 2))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
