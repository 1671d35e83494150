"""The gain of a student over its baseline, its confidence intervals, and the verdict that follows from them.

This module does not import torch.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["improved", "no_difference", "worse", "no_baseline"]
MIN_SEEDS = 3
"""Minimum number of pairs of runs for the verdict to follow the interval over seeds."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Interval(_Part):
    """A confidence interval."""

    low: float
    """Lower bound."""
    high: float
    """Upper bound."""


class ImageInterval(Interval):
    """Bootstrap interval of the gain in mAP: the same resampled validation images for student and baseline."""

    level: float
    """Confidence level, 0 to 1."""
    resamples: int
    """Number of resamples."""
    images: int
    """Number of validation images."""
    by_number: dict[str, Interval | None]
    """Interval of the gain in each of the six metrics; null for a size without objects."""


class SeedInterval(Interval):
    """Student's t interval of the gain in mAP over the pairs of runs."""

    mean: float
    """Mean gain."""
    level: float
    """Confidence level, 0 to 1."""
    n: int
    """Number of pairs."""


class Pair(_Part):
    """mAP of student and baseline with the same seed."""

    seed: int
    """Seed of both runs."""
    student: float
    """mAP of the student, 0 to 1."""
    baseline: float
    """mAP of the baseline, 0 to 1."""
    gain: float
    """Student minus baseline."""


class Comparison(_Part):
    """The gain of the students over the baselines."""

    gain: float
    """Gain in mAP, mean over the pairs."""
    image_interval: ImageInterval
    """Interval of the gain over the choice of validation images."""
    seed_interval: SeedInterval | None
    """Interval of the gain over seeds; null with a single pair."""
    pairs: list[Pair]
    """The pairs of runs, by seed."""
    step_mismatch: str | None = None
    """Message about pairs whose runs have different numbers of steps; null if there are none."""

    @property
    def decisive(self) -> Interval:
        """The interval that the verdict follows: over seeds from `MIN_SEEDS` pairs on, otherwise over images."""
        enough = self.seed_interval is not None and self.seed_interval.n >= MIN_SEEDS
        return self.seed_interval if enough and self.seed_interval else self.image_interval


def verdict(comparison: Comparison | None) -> Verdict:
    """Return the verdict of a complete report."""
    if comparison is None:
        return "no_baseline"
    return verdict_of(comparison.decisive)


def verdict_of(interval: Interval) -> Verdict:
    """Return the verdict for the interval of a gain."""
    return "improved" if interval.low > 0 else "worse" if interval.high < 0 else "no_difference"


def verdict_by(comparison: Comparison) -> Literal["images", "seeds"]:
    """Return the interval that the verdict follows."""
    return "seeds" if isinstance(comparison.decisive, SeedInterval) else "images"


def caveat(comparison: Comparison) -> str:
    """Return the text on what the deciding interval does not cover."""
    return " ".join(filter(None, [_interval_caveat(comparison), comparison.step_mismatch]))


def _interval_caveat(comparison: Comparison) -> str:
    if verdict_by(comparison) == "seeds":
        return "The interval covers the variation between seeds, on these validation images."
    pairs = len(comparison.pairs)
    basis = "one pair of runs: another seed" if pairs == 1 else f"{pairs} pairs of runs: other seeds"
    return (
        "The interval covers the choice of validation images, not the variation between seeds. "
        f"It is based on {basis} may give another gain; `baseline: {{seeds: {MIN_SEEDS}}}` or more measures that."
    )
