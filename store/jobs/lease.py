"""Leases and fencing: a running job belongs to one attempt, and every write is checked against its attempt number.

`Settings.lease_seconds` is the duration of a lease; `store.jobs.lifecycle.requeue_expired` returns jobs with an expired
lease to the queue.
"""

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
    """Number of GPUs requested; None: one if the worker has any."""
    request_id: str | None = None
    """Id of the request that submitted the job; None for a job of an earlier version."""
    nodes: int = 1
    """Number of hosts the job runs on."""

    def log_fields(self) -> dict[str, str | int]:
        """Return the fields that identify the attempt in every line of the log."""
        fields: dict[str, str | int] = {"job_id": self.job_id, "attempt": self.attempt}
        return fields | ({"request_id": self.request_id} if self.request_id else {})


class RequestedAction(IntEnum):
    """The action requested of a running job; the highest value takes precedence."""

    NONE = 0
    STOP = 1
    """End at the next step; keep and evaluate the weights."""
    PAUSE = 2
    """Save a checkpoint and release the slot."""
    CANCEL = 3
    """End without a result."""


@dataclass(frozen=True)
class Renewal:
    """The result of a lease renewal."""

    lease: Lease
    requested_action: RequestedAction


def requested_action(job: Job | Row[*tuple[Any, ...]]) -> RequestedAction:
    """Return the action requested of a job, or of a row with its three `..._requested_at` columns."""
    if job.cancel_requested_at is not None:
        return RequestedAction.CANCEL
    if job.pause_requested_at is not None:
        return RequestedAction.PAUSE
    return RequestedAction.NONE if job.stop_requested_at is None else RequestedAction.STOP


def lock_attempt(session: Session, lease: Lease, **values: Any) -> Job:
    """Lock the job, set `values` and return it. Raises LeaseLost unless the attempt still runs."""
    this_attempt = (Job.id == lease.job_id, Job.attempt == lease.attempt, Job.status == JobStatus.RUNNING)
    for job in lock_jobs(session, *this_attempt, **values):
        return job
    raise LeaseLost(f"Attempt {lease.attempt} no longer holds job {lease.job_id}.")


def lock_jobs(session: Session, *conditions: ColumnElement[bool], **values: Any) -> Sequence[Job]:
    """Lock the jobs that meet the conditions until the transaction ends, set `values` and return the jobs.

    One guarded UPDATE: without values it sets a column to itself, because SQLite has no other lock of a row.
    """
    statement = update(Job).where(*conditions).values(values or {"last_event": Job.last_event}).returning(Job)
    fresh = {"populate_existing": True, "synchronize_session": False}
    return session.scalars(statement, execution_options=fresh).all()
