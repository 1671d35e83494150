"""The fence: a running job belongs to one attempt, and every write says which attempt it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from sqlalchemy import ColumnElement, Row, update
from sqlalchemy.orm import Session

from store.db.tables import Job
from store.errors import LeaseLost
from store.states import JobStatus


@dataclass(frozen=True)
class Lease:
    """The right to run one attempt of a job, until `expires_at` on the database's clock."""

    job_id: str
    attempt: int
    owner: str
    expires_at: float
    devices: int | None = None
    """GPUs the job asks for; None: one where there are any."""


class RequestedAction(IntEnum):
    """What is asked of a running job; the strongest counts."""

    NONE = 0
    STOP = 1
    """End at the next step, keep, evaluate."""
    PAUSE = 2
    """Leave a checkpoint and give the slot back."""
    CANCEL = 3


@dataclass(frozen=True)
class Renewal:
    lease: Lease
    requested_action: RequestedAction


def requested_action(job: Job | Row[*tuple[Any, ...]]) -> RequestedAction:
    """Of a job, or of a row with its three `..._requested_at` columns."""
    if job.cancel_requested_at is not None:
        return RequestedAction.CANCEL
    if job.pause_requested_at is not None:
        return RequestedAction.PAUSE
    return RequestedAction.NONE if job.stop_requested_at is None else RequestedAction.STOP


def lock_attempt(session: Session, lease: Lease, *, events: int = 1, **values: Any) -> Job:
    """The job, locked, if that attempt still runs; `events` and `values` as in `update_returning`. Raises LeaseLost."""
    this_attempt = (Job.id == lease.job_id, Job.attempt == lease.attempt, Job.status == JobStatus.RUNNING)
    for job in update_returning(session, *this_attempt, events=events, **values):
        return job
    raise LeaseLost(f"Attempt {lease.attempt} no longer holds job {lease.job_id}.")


def update_returning(
    session: Session, *conditions: ColumnElement[bool], events: int = 1, **values: Any
) -> Sequence[Job]:
    """The jobs that meet the conditions, with `values` set and the next `events` event numbers taken.

    One guarded UPDATE. Their rows are locked until the transaction ends, so whatever follows in it concerns jobs that
    nobody else can touch.
    """
    statement = update(Job).where(*conditions).values(last_event=Job.last_event + events, **values).returning(Job)
    fresh = {"populate_existing": True, "synchronize_session": False}
    return session.scalars(statement, execution_options=fresh).all()
