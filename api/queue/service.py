"""Read a page of the job queue."""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.http.auth import Caller
from api.http.errors import InvalidField
from api.jobs.service import current_progress
from api.queue.schemas import Counts, Queue, QueuedJob, RunningJob
from store.db.database import Database, time_of
from store.db.tables import Job
from store.scheduling import queue
from store.scheduling.estimate import estimate_empty
from store.scheduling.waiting import waiting_reasons
from store.states import JobStatus

_COUNTED = (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED)


def read_queue(database: Database, caller: Caller, limit: int, cursor: str | None) -> Queue:
    """Return a page of the queue with the jobs that the caller may see. Raises InvalidField for an invalid cursor."""
    after = _decode(cursor) if cursor else None
    with database.read() as session:
        rows = queue.jobs_in_order(session, caller.visible(Job), limit=limit + 1, after=after)
        page, estimate = rows[:limit], estimate_empty(session)
        return Queue(
            data=_queued_jobs(session, page),
            next_cursor=_encode(page[-1]) if len(rows) > limit else None,
            running=_running_jobs(session, caller),
            counts=_count_jobs(session),
            empty_at=estimate.empty_at,
            empty_at_reason=estimate.reason,
        )


def _queued_jobs(session: Session, jobs: Sequence[Job]) -> list[QueuedJob]:
    positions = queue.positions(session, [job.id for job in jobs])
    reasons = waiting_reasons(session, jobs)
    queued = [job for job in jobs if job.id in positions]  # a worker may have claimed a job since the first query
    return [
        QueuedJob.model_validate(_job_fields(job) | {"position": positions[job.id], "status_reason": reasons[job.id]})
        for job in queued
    ]


def _running_jobs(session: Session, caller: Caller) -> list[RunningJob]:
    conditions = (Job.status == JobStatus.RUNNING, caller.visible(Job))
    jobs = session.scalars(select(Job).where(*conditions).order_by(Job.started_at, Job.id))
    at = time_of(session)
    return [RunningJob.model_validate(_running_fields(job) | {"progress": current_progress(job, at)}) for job in jobs]


def _running_fields(job: Job) -> dict[str, Any]:
    return _job_fields(job) | {name: getattr(job, name) for name in ("attempt", "phase", "started_at")}


def _count_jobs(session: Session) -> Counts:
    query = select(Job.status, func.count()).where(Job.status.in_(_COUNTED)).group_by(Job.status)
    counts = {row[0]: row[1] for row in session.execute(query)}
    return Counts(**{status.value: counts.get(status, 0) for status in _COUNTED})


def _job_fields(job: Job) -> dict[str, Any]:
    names = ("name", "owner", "priority", "devices", "nodes", "created_at")
    return {"job_id": job.id} | {name: getattr(job, name) for name in names}


def _encode(job: Job) -> str:
    return base64.urlsafe_b64encode(json.dumps([job.priority, job.id]).encode()).decode()


def _decode(cursor: str) -> tuple[int, str]:
    """Return priority and id of the last job of the previous page."""
    try:
        priority, id = json.loads(base64.urlsafe_b64decode(cursor))
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise _invalid() from error
    if not (type(priority) is int and abs(priority) <= 1000 and isinstance(id, str) and id.isascii()):
        raise _invalid()
    return priority, id


def _invalid() -> InvalidField:
    return InvalidField(
        "cursor",
        "invalid_cursor",
        "This is not a cursor of this list.",
        "Send `next_cursor` of the previous page unchanged.",
    )
