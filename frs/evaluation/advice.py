"""What to do after a verdict: rules of thumb on the facts of a report. This module does not import torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from frs.evaluation.verdict import MIN_SEEDS, Comparison, Verdict, verdict

MIN_RISE = 0.01
"""Rise of the mAP between the last two evaluations above which a training had not levelled off."""
MOST_OF_GAP = 0.8
"""Part of the gap to the teacher above which the teacher is the limit."""
LEAST_MAP = 0.01
"""mAP below which a detector finds next to nothing, so that a comparison says nothing about its training."""
_EARLY_ENDS = {"stopped_early": "stopped by a user", "time_limit": "time limit"}


class Advice(BaseModel):
    """One suggestion, with the fact that it rests on."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    topic: Literal["longer_training", "stronger_teacher", "more_seeds", "weaker_distillation"]
    """What to change."""
    text: str
    """The fact and the next step."""


@dataclass(frozen=True)
class Training:
    """How the training of a student went."""

    curve: Sequence[tuple[int, float | None]] = ()
    """Step and mAP of the student's evaluations, in ascending order of steps."""
    end_reason: str | None = None
    """End reason of the student's job."""


def advise(
    comparison: Comparison, mAP: Mapping[str, float | None], gap_closed: float | None, training: Training
) -> list[Advice]:
    """Return the suggestions for a complete comparison, the one with the largest expected effect first.

    `mAP`: by role, 0 to 1.
    """
    result = verdict(comparison)
    if all((mAP.get(role) or 0.0) < LEAST_MAP for role in ("student", "baseline")):
        text = (
            f"Neither student finds objects (mAP {_points(mAP.get('student') or 0.0)} and "
            f"{_points(mAP.get('baseline') or 0.0)} points), so the comparison says nothing about distillation. Train "
            "both longer; if they still find nothing, check the data set and the learning rate."
        )
        return [Advice(topic="longer_training", text=text)]
    suggestions = (
        _longer_training(training),
        _stronger_teacher(comparison, mAP, gap_closed),
        _more_seeds(comparison, result),
        _weaker_distillation(result),
    )
    return [suggestion for suggestion in suggestions if suggestion]


def _longer_training(training: Training) -> Advice | None:
    if reason := _EARLY_ENDS.get(training.end_reason or ""):
        text = f"The run ended before its last step ({reason}): train to the end for a fair comparison."
        return Advice(topic="longer_training", text=text)
    points = [(step, mAP) for step, mAP in training.curve if mAP is not None][-2:]
    if len(points) < 2:
        return None
    (first, before), (last, after) = points
    if after - before <= MIN_RISE:
        return None
    text = (
        f"The student's mAP still rose by {_points(after - before)} points from step {first} to step {last}. Longer "
        "training may raise it further; the baseline may rise as well, so compare again."
    )
    return Advice(topic="longer_training", text=text)


def _stronger_teacher(
    comparison: Comparison, mAP: Mapping[str, float | None], gap_closed: float | None
) -> Advice | None:
    teacher, baseline, student = (mAP.get(role) for role in ("teacher", "baseline", "student"))
    if teacher is None or baseline is None or student is None:
        return None
    interval = comparison.decisive
    if teacher <= baseline:
        text = (
            f"The teacher ({_points(teacher)}) is not better than the student alone ({_points(baseline)}), so "
            "distilling from it gains little. Train it longer or take a larger one."
        )
    elif gap_closed is not None and gap_closed >= MOST_OF_GAP:
        text = (
            f"The student ({_points(student)}) is close to its teacher ({_points(teacher)}) already: a further gain "
            "needs a better teacher."
        )
    elif verdict(comparison) == "no_difference" and teacher - baseline < (interval.high - interval.low) / 2:
        text = (
            f"The teacher is only {_points(teacher - baseline)} points above the student alone, less than the "
            "uncertainty of the gain. A better teacher leaves more to gain."
        )
    else:
        return None
    return Advice(topic="stronger_teacher", text=text)


def _more_seeds(comparison: Comparison, result: Verdict) -> Advice | None:
    pairs = len(comparison.pairs)
    if pairs < MIN_SEEDS:
        basis = "one pair of runs" if pairs == 1 else f"{pairs} pairs of runs"
        interval = comparison.image_interval
        limit = (
            f" On {interval.images} images it cannot show a gain of less than about "
            f"{_points((interval.high - interval.low) / 2)} points."
            if result == "no_difference"
            else ""
        )
        text = (
            f"The verdict rests on {basis}; another seed may give another gain.{limit} Start a similar job with "
            f"`baseline: {{seeds: {MIN_SEEDS}}}` to measure how much the gain varies."
        )
        return Advice(topic="more_seeds", text=text)
    if result != "no_difference":
        return None
    outlook = (
        "the mean gain is positive, so they may show an improvement"
        if comparison.gain > 0
        else "the mean gain is not positive, so they may as well confirm that there is none"
    )
    text = f"The interval over {pairs} seeds includes 0. More seeds make it narrower; {outlook}."
    return Advice(topic="more_seeds", text=text)


def _weaker_distillation(result: Verdict) -> Advice | None:
    if result != "worse":
        return None
    text = (
        "The student is worse than alone. Compare the gradients of the terms (`train/share_...` in the metrics) with "
        "the task's: a lower `distillation.feature_ratio` or another method gives the task more weight."
    )
    return Advice(topic="weaker_distillation", text=text)


def _points(value: float) -> str:
    """Return an mAP of 0 to 1 in points."""
    return f"{100 * value:.1f}"
