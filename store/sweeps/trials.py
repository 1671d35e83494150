"""The rows of a sweep's trials, brought up to date with their jobs."""

from collections.abc import Collection, Sequence

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from frs.events import ErrorInfo
from store.db.database import now
from store.db.sweep_tables import Sweep, Trial
from store.db.tables import Attempt, Evaluation, Job
from store.states import JobStatus
from store.sweeps.search import Run, TrialResult

MAP = "bbox_mAP"
_DELETED = ErrorInfo(code="job_not_found", message="The job was deleted before its result was read.")


def read(session: Session, sweep: Sweep) -> Sequence[Trial]:
    """Return the trials by number, after updating them from their jobs. The caller has locked the sweep."""
    rows = session.scalars(_trials_of(sweep.id), execution_options={"populate_existing": True}).all()
    ids = [row.job_id for row in rows if row.job_id]
    jobs = {job.id: job for job in session.scalars(select(Job).where(Job.id.in_(ids)))}
    changed = [row for row in rows if row.job_id is None or _has_changed(row, jobs[row.job_id])]
    seconds = running_seconds(session, [row.job_id for row in changed if row.job_id])
    for row in changed:
        if row.job_id:
            _update(session, row, jobs[row.job_id], seconds.get(row.job_id, 0.0))
        elif not row.status.is_terminal:
            row.status, row.error = JobStatus.CANCELLED, _DELETED.model_dump()
    session.flush()
    return rows


def results(rows: Collection[Trial]) -> list[TrialResult]:
    """Return the trials as the search sees them."""
    return [to_result(row) for row in rows]


def to_result(row: Trial) -> TrialResult:
    """Return the trial as the search sees it."""
    return TrialResult(Run(row.setting, row.rung, row.seed), row.status.is_terminal, row.score)


def running_seconds(session: Session, job_ids: Collection[str]) -> dict[str, float]:
    """Return the running time of each job: the sum over its attempts, the current one until now."""
    spans = func.sum(func.coalesce(Attempt.ended_at, now()) - Attempt.started_at)
    query = select(Attempt.job_id, spans).where(Attempt.job_id.in_(job_ids)).group_by(Attempt.job_id)
    return {job_id: float(seconds) for job_id, seconds in session.execute(query)}


def student_score(session: Session, job_id: str) -> float | None:
    """Return the mAP of the job's last evaluation of its student; None without one, or without objects."""
    final = select(Evaluation).where(Evaluation.job_id == job_id, Evaluation.role == "student", Evaluation.last)
    evaluation = session.scalar(final.order_by(Evaluation.attempt.desc(), Evaluation.step.desc()).limit(1))
    return evaluation.metrics.get(MAP) if evaluation else None


def _trials_of(sweep_id: str) -> Select[Trial]:
    return select(Trial).where(Trial.sweep_id == sweep_id).order_by(Trial.number)


def _has_changed(row: Trial, job: Job) -> bool:
    """Return whether the job ran since the row was written, or was retried or resumed after its end."""
    return not job.status.is_terminal or row.status != job.status


def _update(session: Session, row: Trial, job: Job, seconds: float) -> None:
    row.status, row.error, row.seconds = job.status, job.error, seconds
    row.score = student_score(session, job.id) if job.status == JobStatus.SUCCEEDED else None
