"""The proof that distillation paid: teacher, baseline and student side by side. Importable without torch."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Role = Literal["teacher", "baseline", "student", "gain"]
Verdict = Literal["improved", "no_difference", "worse", "no_baseline"]
Metrics = Mapping[str, float | None]
NAMES = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l")
MIN_SEEDS = 3
"""From so many on, the interval over seeds decides."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Scores(_Part):
    """The last evaluation of one detector."""

    metrics: dict[str, float | None]
    per_class: dict[str, float | None]


class Row(_Part):
    role: Role
    metrics: dict[str, float | None]
    """The six COCO numbers, 0 to 1, means over the seeds; of `gain`, student less baseline. Null: a size without objects."""


class Interval(_Part):
    low: float
    high: float


class ImageInterval(Interval):
    """Of the gain in mAP when the validation images are drawn anew, the same ones for student and baseline."""

    level: float
    resamples: int
    images: int
    by_number: dict[str, Interval | None]
    """For each of the six numbers. Null: a size without objects."""


class SeedInterval(Interval):
    """Student's t interval of the gain in mAP over the pairs of runs."""

    mean: float
    level: float
    n: int


class Pair(_Part):
    """Student and baseline of one seed, in mAP."""

    seed: int
    student: float
    baseline: float
    gain: float


class Comparison(_Part):
    gain: float
    """In mAP, mean over the pairs."""
    image_interval: ImageInterval
    seed_interval: SeedInterval | None
    """Null with a single pair."""
    pairs: list[Pair]
    step_mismatch: str | None = None
    """Said where the two runs of a pair did not take as many steps."""

    @property
    def decisive(self) -> Interval:
        enough = self.seed_interval is not None and self.seed_interval.n >= MIN_SEEDS
        return self.seed_interval if enough and self.seed_interval else self.image_interval


class MissingRun(_Part):
    """A run the report still needs, or will never get."""

    job_id: str | None
    what: Literal["student", "baseline", "comparison"]
    status: str
    reason: str | None = None
    """Why it ended, where it ended without result."""


class Report(_Part):
    status: Literal["complete", "partial"]
    """`partial` until every run it compares has ended in an evaluation and they have been compared."""
    waiting_for: list[MissingRun]
    """Why it is partial. A run that has failed or was cancelled will not come: post the job again."""
    rows: list[Row]
    per_class: dict[str, dict[Role, float | None]]
    gap_closed: float | None
    """(student - baseline) / (teacher - baseline) in mAP; null where the teacher is not the better one."""
    comparison: Comparison | None
    verdict: Verdict | None
    """`improved` or `worse` where the interval of the gain in mAP lies above or below 0; null while partial."""
    verdict_by: Literal["images", "seeds"] | None
    """Which interval decided: over seeds from three pairs of runs on."""
    caveat: str | None
    """What that interval does not cover, in words."""
    facts: dict[str, Any]
    """Of the student's run: chosen weights, parameters, FLOPs, latency, hashes, versions, device."""


def build(
    students: Sequence[Scores],
    teacher: Scores | None,
    baselines: Sequence[Scores],
    *,
    pairs: int,
    wants_teacher: bool,
    facts: Mapping[str, Any],
    comparison: Comparison | None = None,
    waiting_for: Sequence[MissingRun] = (),
) -> Report:
    """`pairs`: baselines the job asks for, 0 for none; what it asks for and is not there yet makes the report partial."""
    runs = len(students) >= max(1, pairs) and len(baselines) >= pairs and not (wants_teacher and teacher is None)
    whole = runs and (comparison is not None or not pairs)
    sides: dict[Role, Scores | None] = {"teacher": teacher, "baseline": _mean(baselines), "student": _mean(students)}
    sides["gain"] = _gain(sides["student"], sides["baseline"])
    present = {role: side for role, side in sides.items() if side is not None}
    compared = comparison if whole else None
    return Report(
        status="complete" if whole else "partial",
        waiting_for=[] if whole else list(waiting_for),
        rows=[Row(role=role, metrics=side.metrics) for role, side in present.items()],
        per_class={
            name: {role: side.per_class.get(name) for role, side in present.items()}
            for name in (students[0].per_class if students else {})
        },
        gap_closed=_gap_closed(sides["student"], teacher, sides["baseline"]),
        comparison=comparison,
        verdict=verdict(compared) if whole else None,
        verdict_by=_by(compared) if compared else None,
        caveat=_caveat(compared) if compared else None,
        facts=dict(facts),
    )


def verdict(comparison: Comparison | None) -> Verdict:
    if comparison is None:
        return "no_baseline"
    return verdict_of(comparison.decisive)


def verdict_of(interval: Interval) -> Verdict:
    """Of a gain."""
    return "improved" if interval.low > 0 else "worse" if interval.high < 0 else "no_difference"


def _by(comparison: Comparison) -> Literal["images", "seeds"]:
    return "seeds" if isinstance(comparison.decisive, SeedInterval) else "images"


def _caveat(comparison: Comparison) -> str:
    return " ".join(filter(None, [_not_covered(comparison), comparison.step_mismatch]))


def _not_covered(comparison: Comparison) -> str:
    if _by(comparison) == "seeds":
        return "The interval covers the luck of training, on these validation images."
    pairs = len(comparison.pairs)
    seen = "one pair of runs: another seed" if pairs == 1 else f"{pairs} pairs of runs: other seeds"
    return (
        "The interval covers the choice of validation images, not the luck of training. "
        f"It rests on {seen} may give another gain; `baseline: {{seeds: {MIN_SEEDS}}}` or more measures that."
    )


def _mean(runs: Sequence[Scores]) -> Scores | None:
    """Over the seeds."""
    if not runs:
        return None
    return Scores(metrics=_mean_of([run.metrics for run in runs]), per_class=_mean_of([run.per_class for run in runs]))


def _mean_of(runs: Sequence[Metrics]) -> dict[str, float | None]:
    columns = {name: [run.get(name) for run in runs] for name in runs[0]}
    known = {name: [value for value in values if value is not None] for name, values in columns.items()}
    return {name: sum(known[name]) / len(values) if known[name] == values else None for name, values in columns.items()}


def _gain(student: Scores | None, baseline: Scores | None) -> Scores | None:
    if student is None or baseline is None:
        return None
    return Scores(
        metrics=_difference(student.metrics, baseline.metrics),
        per_class=_difference(student.per_class, baseline.per_class),
    )


def _difference(ours: Metrics, theirs: Metrics) -> dict[str, float | None]:
    pairs = {name: (value, theirs.get(name)) for name, value in ours.items()}
    return {name: None if a is None or b is None else a - b for name, (a, b) in pairs.items()}


def _gap_closed(student: Scores | None, teacher: Scores | None, baseline: Scores | None) -> float | None:
    if student is None or teacher is None or baseline is None:
        return None
    reached, best, alone = (side.metrics["bbox_mAP"] or 0.0 for side in (student, teacher, baseline))
    return (reached - alone) / (best - alone) if best > alone else None
