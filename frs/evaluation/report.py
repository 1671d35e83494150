"""The report of a job: teacher, baseline and student compared. This module does not import torch."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from frs.evaluation.advice import Advice, Training, advise
from frs.evaluation.export_report import FileReport
from frs.evaluation.verdict import Comparison, Verdict, caveat, verdict, verdict_by
from frs.facts import RunFacts

Role = Literal["teacher", "baseline", "student", "gain"]
Metrics = Mapping[str, float | None]
NAMES = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l")
"""The six COCO metrics by mmdet's names."""
_NO_TRAINING = Training()


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Scores(_Part):
    """The final evaluation of one detector."""

    metrics: dict[str, float | None]
    """The six COCO metrics, 0 to 1; null for a size without objects."""
    per_class: dict[str, float | None]
    """mAP of each class, 0 to 1; null for a class without objects."""


class Row(_Part):
    """The metrics of one role."""

    role: Role
    """`teacher`, `baseline`, `student`, or `gain`: student minus baseline."""
    metrics: dict[str, float | None]
    """The six COCO metrics, 0 to 1, as means over the seeds; null for a size without objects."""


class MissingRun(_Part):
    """A run that the report lacks."""

    job_id: str | None
    """Id of the run's job."""
    what: Literal["student", "baseline", "comparison"]
    """Role of the run."""
    status: str
    """Status of the run's job."""
    reason: str | None = None
    """Reason why the run ended without a result."""


class Report(_Part):
    """The report of a job."""

    status: Literal["complete", "partial"]
    """`partial` until all runs have been evaluated and compared."""
    waiting_for: list[MissingRun]
    """Runs that a partial report lacks. A failed or cancelled run gives no result: post the job again."""
    rows: list[Row]
    """Metrics of teacher, baseline and student, and the gain."""
    per_class: dict[str, dict[Role, float | None]]
    """mAP of each class by role, 0 to 1; null for a class without objects."""
    files: list[FileReport]
    """The exported files of the student, by its newest export."""
    gap_closed: float | None
    """(student - baseline) / (teacher - baseline) in mAP; null unless the teacher is better than the baseline."""
    comparison: Comparison | None
    """The gain with its intervals; null without a baseline or before the comparison."""
    verdict: Verdict | None
    """`improved` or `worse` if the interval of the gain in mAP lies above or below 0; null while partial."""
    verdict_by: Literal["images", "seeds"] | None
    """The interval that the verdict follows: over seeds from three pairs of runs on."""
    caveat: str | None
    """What that interval does not cover."""
    advice: list[Advice] = []
    """What to do next, by rules of thumb; empty without a comparison or while partial."""
    facts: RunFacts
    """Facts of the student's run: chosen weights, parameters, FLOPs, latency, hashes, versions, device."""


def build(
    students: Sequence[Scores],
    teacher: Scores | None,
    baselines: Sequence[Scores],
    *,
    pairs: int,
    expects_teacher: bool,
    facts: RunFacts,
    comparison: Comparison | None = None,
    waiting_for: Sequence[MissingRun] = (),
    files: Sequence[FileReport] = (),
    training: Training = _NO_TRAINING,
) -> Report:
    """Return the report of the evaluated runs.

    `pairs` is the number of baselines that the job requests (0: none). The report is partial if a requested student,
    baseline, teacher evaluation or comparison is missing. `training`: of the first student, for the advice.
    """
    evaluated = len(students) >= max(1, pairs) and len(baselines) >= pairs and not (expects_teacher and teacher is None)
    complete = evaluated and (comparison is not None or not pairs)
    scores: dict[Role, Scores | None] = {"teacher": teacher, "baseline": _mean(baselines), "student": _mean(students)}
    scores["gain"] = _gain(scores["student"], scores["baseline"])
    available = {role: role_scores for role, role_scores in scores.items() if role_scores is not None}
    final_comparison = comparison if complete else None
    gap_closed = _gap_closed(scores["student"], teacher, scores["baseline"])
    mAP: dict[str, float | None] = {
        role: role_scores.metrics.get("bbox_mAP") for role, role_scores in available.items()
    }
    return Report(
        status="complete" if complete else "partial",
        waiting_for=[] if complete else list(waiting_for),
        rows=[Row(role=role, metrics=role_scores.metrics) for role, role_scores in available.items()],
        per_class={
            name: {role: role_scores.per_class.get(name) for role, role_scores in available.items()}
            for name in (students[0].per_class if students else {})
        },
        files=list(files),
        gap_closed=gap_closed,
        comparison=comparison,
        verdict=verdict(final_comparison) if complete else None,
        verdict_by=verdict_by(final_comparison) if final_comparison else None,
        caveat=caveat(final_comparison) if final_comparison else None,
        advice=advise(final_comparison, mAP, gap_closed, training) if final_comparison else [],
        facts=facts,
    )


def _mean(runs: Sequence[Scores]) -> Scores | None:
    """Return the mean scores over the seeds; None without runs."""
    if not runs:
        return None
    return Scores(metrics=_mean_of([run.metrics for run in runs]), per_class=_mean_of([run.per_class for run in runs]))


def _mean_of(runs: Sequence[Metrics]) -> dict[str, float | None]:
    """Return the mean of each metric; None if a run lacks it."""
    columns = {name: [run.get(name) for run in runs] for name in runs[0]}
    defined = {name: [value for value in values if value is not None] for name, values in columns.items()}
    return {
        name: sum(defined[name]) / len(values) if defined[name] == values else None for name, values in columns.items()
    }


def _gain(student: Scores | None, baseline: Scores | None) -> Scores | None:
    if student is None or baseline is None:
        return None
    return Scores(
        metrics=_difference(student.metrics, baseline.metrics),
        per_class=_difference(student.per_class, baseline.per_class),
    )


def _difference(student: Metrics, baseline: Metrics) -> dict[str, float | None]:
    pairs = {name: (value, baseline.get(name)) for name, value in student.items()}
    return {name: None if a is None or b is None else a - b for name, (a, b) in pairs.items()}


def _gap_closed(student: Scores | None, teacher: Scores | None, baseline: Scores | None) -> float | None:
    if student is None or teacher is None or baseline is None:
        return None
    student_mAP, teacher_mAP, baseline_mAP = (
        scores.metrics["bbox_mAP"] or 0.0 for scores in (student, teacher, baseline)
    )
    return (student_mAP - baseline_mAP) / (teacher_mAP - baseline_mAP) if teacher_mAP > baseline_mAP else None
