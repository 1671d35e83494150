"""The proof that distillation paid: teacher, baseline and student side by side. Importable without torch."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Role = Literal["teacher", "baseline", "student", "gain"]
Verdict = Literal["improved", "no_difference", "worse", "no_baseline"]
Metrics = Mapping[str, float | None]


class Scores(BaseModel):
    """The last evaluation of one detector."""

    model_config = ConfigDict(frozen=True)
    metrics: dict[str, float | None]
    per_class: dict[str, float | None]


class Row(BaseModel):
    role: Role
    metrics: dict[str, float | None]
    """The six COCO numbers, 0 to 1; of `gain`, student less baseline. Null: a size without objects."""


class Report(BaseModel):
    status: Literal["complete", "partial"]
    """`partial` until every run it compares has ended in an evaluation."""
    rows: list[Row]
    per_class: dict[str, dict[Role, float | None]]
    gap_closed: float | None
    """(student - baseline) / (teacher - baseline) in mAP; null where the teacher is not the better one."""
    verdict: Verdict | None
    """From the difference in mAP of one pair of runs; null while partial."""
    facts: dict[str, Any]
    """Of the student's run: chosen weights, parameters, hashes, versions, device."""


def build(
    student: Scores | None,
    teacher: Scores | None,
    baseline: Scores | None,
    *,
    wants_baseline: bool,
    wants_teacher: bool,
    facts: Mapping[str, Any],
) -> Report:
    """`wants_...`: whether the job has one at all; what it has and is not there yet makes the report partial."""
    whole = (
        student is not None and not (wants_baseline and baseline is None) and not (wants_teacher and teacher is None)
    )
    sides: dict[Role, Scores | None] = {"teacher": teacher, "baseline": baseline, "student": student}
    sides["gain"] = _gain(student, baseline)
    present = {role: side for role, side in sides.items() if side is not None}
    return Report(
        status="complete" if whole else "partial",
        rows=[Row(role=role, metrics=side.metrics) for role, side in present.items()],
        per_class={
            name: {role: side.per_class.get(name) for role, side in present.items()}
            for name in (student.per_class if student else {})
        },
        gap_closed=_gap_closed(student, teacher, baseline),
        verdict=_verdict(sides["gain"], wants_baseline) if whole else None,
        facts=dict(facts),
    )


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


def _verdict(gain: Scores | None, wants_baseline: bool) -> Verdict:
    if not wants_baseline or gain is None:
        return "no_baseline"
    difference = gain.metrics["bbox_mAP"] or 0.0
    return "improved" if difference > 0 else "worse" if difference < 0 else "no_difference"
