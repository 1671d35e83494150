import base64
import binascii
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.http.auth import Caller
from api.http.errors import InvalidField
from api.queue.schemas import Counts, Queue, QueuedJob, RunningJob
from store.db.database import Database
from store.db.tables import Job
from store.scheduling import queue
from store.scheduling.waiting import waiting_reasons
from store.states import JobStatus

_COUNTED = (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED)


class QueuePlace(NamedTuple):
    """Where in the line a job stands, whoever comes or goes."""

    priority: int
    created_at: float
    id: str


def read(database: Database, caller: Caller, limit: int, cursor: str | None) -> Queue:
    """Raises InvalidField for a cursor that is none of ours."""
    after = _decode(cursor) if cursor else None
    with database.read() as session:
        rows = queue.in_order(session, caller.visible(Job), limit=limit + 1, after=after)
        page = rows[:limit]
        return Queue(
            data=_waiting(session, page),
            next_cursor=_encode(page[-1]) if len(rows) > limit else None,
            running=_running(session, caller),
            counts=_counts(session),
        )


def _waiting(session: Session, jobs: Sequence[Job]) -> list[QueuedJob]:
    positions = queue.positions(session, [job.id for job in jobs])
    reasons = waiting_reasons(session, jobs)
    still = [job for job in jobs if job.id in positions]  # one may have been taken since
    return [
        QueuedJob.model_validate(_facts(job) | {"position": positions[job.id], "status_reason": reasons[job.id]})
        for job in still
    ]


def _running(session: Session, caller: Caller) -> list[RunningJob]:
    these = (Job.status == JobStatus.RUNNING, caller.visible(Job))
    jobs = session.scalars(select(Job).where(*these).order_by(Job.started_at, Job.id))
    more = ("attempt", "phase", "progress", "started_at")
    return [RunningJob.model_validate(_facts(job) | {name: getattr(job, name) for name in more}) for job in jobs]


def _counts(session: Session) -> Counts:
    query = select(Job.status, func.count()).where(Job.status.in_(_COUNTED)).group_by(Job.status)
    found = {row[0]: row[1] for row in session.execute(query)}
    return Counts(**{status.value: found.get(status, 0) for status in _COUNTED})


def _facts(job: Job) -> dict[str, Any]:
    names = ("name", "owner", "priority", "devices", "created_at")
    return {"job_id": job.id} | {name: getattr(job, name) for name in names}


def _encode(job: Job) -> str:
    return base64.urlsafe_b64encode(json.dumps([job.priority, job.created_at, job.id]).encode()).decode()


def _decode(cursor: str) -> QueuePlace:
    try:
        priority, created_at, id = json.loads(base64.urlsafe_b64decode(cursor))
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise _invalid() from error
    is_ours = (
        type(priority) is int and abs(priority) <= 1000 and isinstance(created_at, float) and math.isfinite(created_at)
    )
    if not (is_ours and isinstance(id, str) and id.isascii()):
        raise _invalid()
    return QueuePlace(priority, created_at, id)


def _invalid() -> InvalidField:
    return InvalidField("cursor", "invalid_cursor", "Not a cursor of this list.", "Use `next_cursor` as it came.")
