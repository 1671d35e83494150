"""COCO's numbers as a function of how often each image counts, for many resamples of the images at once."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from frs.evaluation.matching import FOUND, IGNORED, THRESHOLDS, ClassMatches
from frs.evaluation.report import NAMES, Interval

RECALLS = np.linspace(0, 1, 101)
LEVEL = 0.95
RESAMPLES = 1000
SEED = 0
_CELLS = 4_000_000
"""Of the largest array at a time: resamples of one class's detections."""
Multiplicities = NDArray[np.int64]
"""(resamples, images): how often each image counts."""
Precisions = NDArray[np.float64]
"""(resamples, classes, sizes, thresholds): average precision; NaN where there is nothing to find."""


def each_once(matches: Sequence[ClassMatches]) -> Precisions:
    """Of every image once: what the evaluation itself gives."""
    return average_precisions(matches, np.ones((1, len(matches[0].objects)), np.int64))


def draw_resamples(images: int, count: int = RESAMPLES, seed: int = SEED) -> Multiplicities:
    """So many draws of `images` images with replacement, always the same ones."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=count)


def average_precisions(
    matches: Sequence[ClassMatches], times: Multiplicities, tick: Callable[[int, int], None] | None = None
) -> Precisions:
    """`tick(done, classes)` is called after each class."""
    result = np.full((len(times), len(matches), 4, len(THRESHOLDS)), np.nan)
    for k, of_class in enumerate(matches):
        rows = max(1, _CELLS // max(1, len(of_class.image)))
        for start in range(0, len(times), rows):
            part = slice(start, start + rows)
            result[part, k] = _of_class(of_class, times[part])
        if tick:
            tick(k + 1, len(matches))
    return result


def coco_numbers(precisions: Precisions) -> dict[str, NDArray[np.float64]]:
    """The six, one value a resample; NaN for a size without objects. A class without objects is left out."""
    everything = precisions[:, :, 0]
    at = [everything, everything[..., :1], everything[..., 5:6], *(precisions[:, :, size] for size in (1, 2, 3))]
    return {name: _mean(values) for name, values in zip(NAMES, at, strict=True)}


def per_class(precisions: Precisions) -> list[float | None]:
    """Of the first resample, over the thresholds; None for a class without objects."""
    return [None if np.isnan(values).any() else float(values.mean()) for values in precisions[0, :, 0]]


def interval(values: NDArray[np.float64], level: float = LEVEL) -> Interval | None:
    """Percentiles over the resamples that have a value; None where none has."""
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high))


def _of_class(matches: ClassMatches, times: Multiplicities) -> NDArray[np.float64]:
    """(resamples, sizes, thresholds)"""
    result = np.full((len(times), 4, len(THRESHOLDS)), np.nan)
    objects = times @ matches.objects
    counted = times[:, matches.image]
    so_far = counted.cumsum(axis=1)
    for size in range(4):
        present = objects[:, size] > 0
        for threshold in range(len(THRESHOLDS) if present.any() else 0):
            outcome = matches.outcome[:, size, threshold]
            curve = _envelope(outcome, counted, so_far, objects[:, size])
            result[present, size, threshold] = curve[present]
    return result


def _envelope(
    outcome: NDArray[np.int8], counted: Multiplicities, so_far: Multiplicities, objects: Multiplicities
) -> NDArray[np.float64]:
    """Mean over the 101 recalls of the best precision at that restore_warnings or beyond.

    Precision peaks at right detections, so only they are looked at; each stands for the recalls first reached there.
    """
    right = np.flatnonzero(outcome == FOUND)
    if not right.size:
        return np.zeros(len(counted))
    hits = counted[:, right].cumsum(axis=1)
    said = so_far[:, right] - _ignored_before(outcome, counted, right)
    precision = hits / np.maximum(said, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(RECALLS, hits / np.maximum(objects, 1)[:, None], side="right")
    return (best * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS)


def _ignored_before(
    outcome: NDArray[np.int8], counted: Multiplicities, right: NDArray[np.intp]
) -> Multiplicities | int:
    ignored = np.flatnonzero(outcome == IGNORED)
    if not ignored.size:
        return 0
    sums = np.pad(counted[:, ignored].cumsum(axis=1), ((0, 0), (1, 0)))
    return sums[:, np.searchsorted(ignored, right)]


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over classes and thresholds, of those that are known."""
    known = ~np.isnan(values)
    count = known.sum(axis=(1, 2))
    total = np.where(known, values, 0.0).sum(axis=(1, 2))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
