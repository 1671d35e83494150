"""What changes when a job goes from one state to another, and the event that says so.

For jobs just locked by `store.jobs.lease.lock` or `hold`, which also took the number of that event.
"""

from typing import Any, Literal

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from frs.events import ErrorInfo
from store.db.database import insert, now, time_of
from store.db.tables import Attempt, Checkpoint, Event, Job
from store.states import WITHOUT_PROGRESS, AttemptEnd, EndReason, JobStatus, WaitingReason

MAX_FRUITLESS_ATTEMPTS = 3
"""So many attempts in a row that died without a newer training checkpoint end the job."""
_STATUS_OF_END = {
    AttemptEnd.CRASHED: "its trainer died.",
    AttemptEnd.LOST: "its worker was not heard of any more, and its lease ran out.",
    AttemptEnd.RELEASED: "its worker gave the job back.",
}


def return_to_queue(
    session: Session,
    job: Job,
    how: AttemptEnd,
    reason: WaitingReason | None = None,
    message: str = "",
    delay: float = 0.0,
) -> JobStatus:
    """Back to the queue, unless a cancel or a pause was accepted or the job has died too often; says which."""
    end_attempt(session, job, how)
    if job.cancel_requested_at is not None:
        return end_job(session, job, JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER)
    if how in WITHOUT_PROGRESS and _attempts_without_progress(session, job) >= MAX_FRUITLESS_ATTEMPTS:
        return end_job(session, job, JobStatus.FAILED, EndReason.POISON, _poison(job))
    if job.pause_requested_at is not None:
        return move_to(session, job, JobStatus.PAUSED)
    _leave_the_worker(job, JobStatus.QUEUED)
    at = time_of(session)
    job.not_before = at + delay if delay else None
    if reason:
        job.status_reason_code, job.status_reason_message, job.status_reason_since = reason, message, at
    add_status_event(session, job, message or f"Attempt {job.attempt}: {_STATUS_OF_END[how]}")
    return job.status


def end_job(
    session: Session, job: Job, status: JobStatus, end_reason: EndReason, error: ErrorInfo | None = None
) -> JobStatus:
    _leave_the_worker(job, status)
    job.end_reason = end_reason
    job.error = error.model_dump() if error else None
    job.finished_at = time_of(session)
    add_status_event(session, job)
    return status


def move_to(session: Session, job: Job, status: Literal[JobStatus.QUEUED, JobStatus.PAUSED]) -> JobStatus:
    """To where no worker has it, as somebody wished; what was asked of it before is done with."""
    _leave_the_worker(job, status)
    job.cancel_requested_at = job.pause_requested_at = job.stop_requested_at = None
    job.end_reason = job.error = job.finished_at = None
    add_status_event(session, job)
    return status


def end_attempt(session: Session, job: Job, how: AttemptEnd) -> None:
    this_one = (Attempt.job_id == job.id, Attempt.number == job.attempt)
    session.execute(update(Attempt).where(*this_one).values(end=how, ended_at=now()))


def add_status_event(session: Session, job: Job, why: str | None = None) -> None:
    """`why`: where neither an error nor a reason to wait says it."""
    reason = job.end_reason or job.status_reason_code
    message = job.error["message"] if job.error else job.status_reason_message or why
    add_event(session, job, "status", {"status": job.status, "reason": reason, "message": message})


def add_event(session: Session, job: Job, type: str, data: dict[str, Any]) -> None:
    """An event of a job just held, under the event number taken with it."""
    session.flush()
    row = {"job_id": job.id, "seq": job.last_event, "attempt": job.attempt, "type": type, "data": data}
    session.execute(insert(session, Event.__table__), row)


def _leave_the_worker(job: Job, status: JobStatus) -> None:
    job.status = status
    job.lease_owner = job.lease_expires_at = job.not_before = job.phase = None
    job.status_reason_code = job.status_reason_message = job.status_reason_since = None


def _attempts_without_progress(session: Session, job: Job) -> int:
    """Attempts that died since the newest training checkpoint was committed and since somebody resumed the job."""
    fruitful = select(func.max(Checkpoint.attempt)).where(Checkpoint.job_id == job.id, Checkpoint.kind == "training")
    since = (
        Attempt.number > func.coalesce(fruitful.scalar_subquery(), 0),
        Attempt.number > job.failures_reset_at_attempt,
    )
    query = select(func.count()).where(Attempt.job_id == job.id, Attempt.end.in_(WITHOUT_PROGRESS), *since)
    return session.scalars(query).one()


def _poison(job: Job) -> ErrorInfo:
    return ErrorInfo(
        code="poison",
        message=f"{MAX_FRUITLESS_ATTEMPTS} attempts in a row died before a new checkpoint; the last was attempt {job.attempt}.",
        hint="See GET /jobs/{id}/logs; lower `schedule.checkpoint_every` if checkpoints are far apart.",
    )
