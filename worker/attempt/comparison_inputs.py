"""The runs that a comparison job compares, as detection files and curves."""

from pathlib import Path

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from frs.errors import DetectionsUnusable
from frs.events import Role
from frs.resolved import MAP, ComparisonInputs, FinishedRun, detections_file, is_drawn
from store.db.queries import compared_runs
from store.db.tables import Artifact, Job, Metric
from store.stored_documents import read_facts
from worker.attempt.inputs import AttemptInputs

_POINTS = 400
"""Approximate number of points of a curve, which is drawn a few hundred pixels wide."""
_ROLES = {"distill": "student", "train": "baseline"}


def resolve_comparison_inputs(session: Session, comparison: Job, inputs: AttemptInputs) -> ComparisonInputs:
    """Return the runs of the comparison and add their detections to the inputs.

    Raises DetectionsUnusable if the runs were deleted or a run has no detections.
    """
    runs = compared_runs(session, comparison)
    if not runs:
        raise DetectionsUnusable("The runs to compare were deleted.", "Post the job again.")
    facts = read_facts(runs[0].facts)
    return ComparisonInputs(
        runs=tuple(_run(session, run, inputs) for run in runs),
        teacher=_detections(session, runs[0], "teacher", inputs) if facts.teacher_evaluated else None,
        facts=facts,
    )


def _run(session: Session, job: Job, inputs: AttemptInputs) -> FinishedRun:
    return FinishedRun.model_validate(
        {
            "role": _ROLES[job.kind],
            "seed": job.spec["schedule"]["seed"],
            "detections": _detections(session, job, "student", inputs),
            "curves": _curves(session, job),
            "end_reason": job.end_reason,
        }
    )


def _detections(session: Session, job: Job, role: Role, inputs: AttemptInputs) -> Path:
    missing_error = DetectionsUnusable(f"Job {job.id} has no detections of its {role}.", "Post the job again.")
    row = session.get(Artifact, (job.id, detections_file(role)))
    if row is None:
        raise missing_error
    return inputs.add(row.key, row.sha256, missing_error, row.bytes)


def _curves(session: Session, job: Job) -> dict[str, list[tuple[int, float | None]]]:
    """Return the points of every drawn metric, `(step, value)`; all of mAP, every n-th step of the others."""
    keys = session.scalars(select(Metric.key).where(Metric.job_id == job.id).distinct())
    drawn = [key for key in keys if is_drawn(key)]
    last = session.scalar(select(func.max(Metric.step)).where(Metric.job_id == job.id)) or 0
    is_sampled = or_(Metric.key == MAP, Metric.step % max(1, last // _POINTS) == 0)
    columns = select(Metric.key, Metric.step, Metric.value)
    query = columns.where(Metric.job_id == job.id, Metric.key.in_(drawn), is_sampled).order_by(Metric.step)
    curves: dict[str, list[tuple[int, float | None]]] = {key: [] for key in drawn}
    for key, step, value in session.execute(query):
        curves[key].append((step, value))
    return curves
