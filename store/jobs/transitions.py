"""State transitions of a job, each with its status event.

The functions expect a job just locked by `store.jobs.lease.lock_attempt` or `lock_jobs`; events are numbered under this
lock.
"""

from typing import Any, Literal

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from frs.events import ErrorInfo
from store.db.audit import Actor
from store.db.database import insert, now, time_of
from store.db.tables import Attempt, Checkpoint, Event, Job
from store.states import MAX_WITHOUT_PROGRESS, AttemptEnd, EndReason, JobStatus, WaitingReason
from store.webhooks import outbox

_MESSAGES = {
    AttemptEnd.CRASHED: "the trainer died.",
    AttemptEnd.LOST: "the lease expired, because the worker, its host or the database failed.",
    AttemptEnd.RELEASED: "the worker returned the job to the queue.",
}
_POISON_MESSAGES = {
    AttemptEnd.CRASHED: "the trainer died {limit} times before a new checkpoint was saved.",
    AttemptEnd.LOST: "the worker or its host failed {limit} times before a new checkpoint was saved.",
}


def return_to_queue(
    session: Session,
    job: Job,
    end: AttemptEnd,
    reason: WaitingReason | None = None,
    message: str = "",
    delay: float = 0.0,
) -> JobStatus:
    """End the attempt and return the job to the queue; return the new status. No worker claims it for `delay` seconds.

    A job whose cancel or pause was accepted is cancelled or paused instead. A job fails as `poison` if its attempts
    have ended like this too often, see `MAX_WITHOUT_PROGRESS`.
    """
    end_attempt(session, job, end)
    if job.cancel_requested_at is not None:
        return end_job(session, job, JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER)
    limit = MAX_WITHOUT_PROGRESS.get(end)
    if limit and _count_without_progress(session, job, end) >= limit:
        return end_job(session, job, JobStatus.FAILED, EndReason.POISON, _poison_error(job, end, limit))
    if job.pause_requested_at is not None:
        return move_to(session, job, JobStatus.PAUSED)
    _clear_run_state(job, JobStatus.QUEUED)
    job.queued_at = at = time_of(session)
    job.not_before = at + delay if delay else None
    if reason:
        job.status_reason_code, job.status_reason_message, job.status_reason_since = reason, message, at
    add_status_event(session, job, message or f"Attempt {job.attempt}: {_MESSAGES[end]}")
    return job.status


def end_job(
    session: Session,
    job: Job,
    status: JobStatus,
    end_reason: EndReason,
    error: ErrorInfo | None = None,
    *,
    actor: Actor | None = None,
) -> JobStatus:
    """End the job, at the request of `actor` if there is one, and return its status."""
    _clear_run_state(job, status)
    job.end_reason = end_reason
    job.error = error.model_dump() if error else None
    job.finished_at = time_of(session)
    add_status_event(session, job, actor=actor)
    return status


def move_to(
    session: Session,
    job: Job,
    status: Literal[JobStatus.QUEUED, JobStatus.PAUSED],
    actor: Actor | None = None,
) -> JobStatus:
    """Queue or pause the job at a user's request, and clear earlier requests; return its status."""
    _clear_run_state(job, status)
    job.queued_at = time_of(session)
    job.cancel_requested_at = job.pause_requested_at = job.stop_requested_at = None
    job.end_reason = job.error = job.finished_at = None
    add_status_event(session, job, actor=actor)
    return status


def end_attempt(session: Session, job: Job, end: AttemptEnd) -> None:
    """Record how the job's newest attempt ended."""
    this_attempt = (Attempt.job_id == job.id, Attempt.number == job.attempt)
    session.execute(update(Attempt).where(*this_attempt).values(end=end, ended_at=now()))


def add_status_event(
    session: Session, job: Job, message: str | None = None, actor: Actor | None = None, **data: Any
) -> None:
    """Add the event of the job's new status, with `data` and, in `by`, the owner of the key that requested it.

    The webhooks of the job's owner receive it. `message` applies if the job has neither an error nor a waiting reason.
    """
    reason = job.end_reason or job.status_reason_code
    message = job.error["message"] if job.error else job.status_reason_message or message
    add_event(session, job, "status", {"status": job.status, "reason": reason, "message": message} | by(actor) | data)
    outbox.add_deliveries(session, job)


def add_event(session: Session, job: Job, type: str, data: dict[str, Any]) -> None:
    """Add an event with the job's next event number."""
    insert_event(session, job, next_event_number(job), type, data)


def insert_event(session: Session, job: Job, number: int, type: str, data: dict[str, Any]) -> None:
    """Insert an event with a number that the job's row has counted already."""
    session.flush()
    row = {"job_id": job.id, "seq": number, "attempt": job.attempt, "type": type, "data": data}
    session.execute(insert(session, Event.__table__), row)


def next_event_number(job: Job) -> int:
    """Take the job's next event number and return it."""
    job.last_event += 1
    return job.last_event


def by(actor: Actor | None) -> dict[str, str]:
    """Return the field of an event that names the owner whose key requested it."""
    return {"by": actor.owner} if actor else {}


def _clear_run_state(job: Job, status: JobStatus) -> None:
    job.status = status
    job.lease_owner = job.lease_expires_at = job.not_before = job.phase = None
    job.status_reason_code = job.status_reason_message = job.status_reason_since = None


def _count_without_progress(session: Session, job: Job, end: AttemptEnd) -> int:
    """Return the number of attempts with that end since the newest training checkpoint and the last resume or retry."""
    last_with_checkpoint = select(func.max(Checkpoint.attempt)).where(
        Checkpoint.job_id == job.id, Checkpoint.kind == "training"
    )
    since = (
        Attempt.number > func.coalesce(last_with_checkpoint.scalar_subquery(), 0),
        Attempt.number > job.failures_reset_at_attempt,
    )
    query = select(func.count()).where(Attempt.job_id == job.id, Attempt.end == end, *since)
    return session.scalars(query).one()


def _poison_error(job: Job, end: AttemptEnd, limit: int) -> ErrorInfo:
    return ErrorInfo(
        code="poison",
        message=f"Attempt {job.attempt}: {_POISON_MESSAGES[end].format(limit=limit)}",
        hint="See the job's log; lower `schedule.checkpoint_every` if checkpoints are far apart.",
    )
