"""Worker requests: tasks of seconds that need a worker but are not jobs.

They are leased and fenced as jobs are, but have no events and no files. Every function takes a session of
`Database.write` and leaves the commit to its caller.
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Select, delete, false, or_, select, update
from sqlalchemy.orm import Session

from frs.events import ErrorInfo
from store.artifacts import uploads
from store.db import ids
from store.db.database import now, time_of
from store.db.tables import Document, WorkerRequest
from store.errors import LeaseLost
from store.scheduling.queue import CPU_ONLY, GpuCapacity
from store.states import RequestKind, RequestStatus, WaitingReason

T = TypeVar("T")
MAX_ATTEMPTS = 3
"""A request fails as `poison` after this many of its claims expired."""
RETENTION_SECONDS = 7 * 86_400.0
"""Ended requests are kept this long, so that clients can read the result."""
_PREFIX: dict[RequestKind, ids.Prefix] = {RequestKind.PROBE: "plan", RequestKind.IMPORT: "import"}


@dataclass(frozen=True)
class RequestLease:
    """The right to execute one claim of a worker request."""

    worker_request_id: str
    attempt: int
    kind: RequestKind
    owner: str
    """Owner of the request, not of the lease."""
    request: Document
    devices: int | None
    token: str
    """Identifies this claim; the attempt number does not, because `give_back` decreases it."""

    def log_fields(self) -> dict[str, str | int]:
        """Return the fields that identify the attempt in every line of the log."""
        return {"worker_request_id": self.worker_request_id, "attempt": self.attempt}


def add(
    session: Session, kind: RequestKind, request: Document, *, owner: str, devices: int | None = 0
) -> WorkerRequest:
    """Add a request to the queue and return it; `devices` as in `Job.devices`."""
    worker_request = WorkerRequest(
        id=ids.new_id(_PREFIX[kind]), kind=kind, owner=owner, request=request, devices=devices
    )
    session.add(worker_request)
    session.flush()
    return worker_request


def peek(session: Session, capacity: GpuCapacity, exclusions: Collection[str], limit: int) -> Sequence[WorkerRequest]:
    """Return the first `limit` requests that `claim` chooses from, oldest first, without locking them."""
    return session.scalars(
        _claimable(select(WorkerRequest), capacity).where(WorkerRequest.id.not_in(exclusions)).limit(limit)
    ).all()


def claimable(capacity: GpuCapacity) -> Select[str]:
    """Return the query of the ids of the requests that a worker may claim."""
    return _claimable(select(WorkerRequest.id), capacity)


def claim(
    session: Session,
    owner: str,
    lease_seconds: float,
    capacity: GpuCapacity = CPU_ONLY,
    *,
    among: Collection[str] | None = None,
) -> RequestLease | None:
    """Claim the oldest request that fits the capacity and is queued or has an expired lease; return its lease.

    `among` restricts the choice to these ids. Returns None if there is no such request, or if it has exceeded
    `MAX_ATTEMPTS` and therefore failed.
    """
    token = f"{owner}/{secrets.token_hex(4)}"
    oldest = _claimable(select(WorkerRequest.id), capacity)
    if among is not None:
        oldest = oldest.where(WorkerRequest.id.in_(among))
    worker_request = session.scalar(
        update(WorkerRequest)
        .where(WorkerRequest.id == oldest.limit(1).with_for_update(skip_locked=True).scalar_subquery())
        .values(
            status=RequestStatus.RUNNING,
            attempt=WorkerRequest.attempt + 1,
            lease_owner=token,
            lease_expires_at=now() + lease_seconds,
            not_before=None,
            status_reason_code=None,
            status_reason_message=None,
            status_reason_since=None,
        )
        .returning(WorkerRequest),
        execution_options={"populate_existing": True, "synchronize_session": False},
    )
    if worker_request is None:
        return None
    if worker_request.attempt > MAX_ATTEMPTS:
        _fail_as_poison(session, worker_request)
        return None
    return RequestLease(
        worker_request.id,
        worker_request.attempt,
        worker_request.kind,
        worker_request.owner,
        worker_request.request,
        worker_request.devices,
        token,
    )


def renew(session: Session, lease: RequestLease, lease_seconds: float) -> None:
    """Extend the lease. Raise LeaseLost."""
    _lock_attempt(session, lease, lease_expires_at=now() + lease_seconds)


def finish(
    session: Session, lease: RequestLease, *, result: Document | None = None, error: ErrorInfo | None = None
) -> None:
    """End the request with exactly one of `result` and `error`. Raise LeaseLost."""
    _finish(_lock_attempt(session, lease, finished_at=now()), result, error)


def give_back(session: Session, lease: RequestLease) -> None:
    """Return the request to the queue without counting the attempt. Raise LeaseLost."""
    _requeue(session, lease, attempt_counts=False)


def retry_later(session: Session, lease: RequestLease, error: ErrorInfo, delay: float, *, attempt_counts: bool) -> None:
    """Return the request to the queue; no worker claims it for `delay` seconds. Raise LeaseLost.

    If the error's code is a waiting reason, the request has it meanwhile. A detector that is being imported has any
    error.
    """
    worker_request, at = _requeue(session, lease, attempt_counts=attempt_counts), time_of(session)
    worker_request.not_before = at + delay if delay else None
    if error.code in set(WaitingReason):
        worker_request.status_reason_code = WaitingReason(error.code)
        worker_request.status_reason_message, worker_request.status_reason_since = error.message, at
    if lease.kind is RequestKind.IMPORT:
        uploads.postpone_import(session, lease.request["detector_id"], error)


def delete_old(session: Session) -> None:
    """Delete the requests that ended more than `RETENTION_SECONDS` ago."""
    ended = WorkerRequest.status.in_([RequestStatus.SUCCEEDED, RequestStatus.FAILED])
    session.execute(delete(WorkerRequest).where(ended, WorkerRequest.finished_at < now() - RETENTION_SECONDS))


def _claimable(query: Select[T], capacity: GpuCapacity) -> Select[T]:
    lost = (WorkerRequest.status == RequestStatus.RUNNING) & (WorkerRequest.lease_expires_at < now())
    if capacity.nodes > 1:
        return query.where(false())  # a request of seconds does not occupy several hosts
    is_due = or_(WorkerRequest.not_before.is_(None), WorkerRequest.not_before <= now())
    is_waiting = (WorkerRequest.status == RequestStatus.QUEUED) & is_due
    return query.where(or_(is_waiting, lost), capacity.fits(WorkerRequest)).order_by(WorkerRequest.created_at)


def _fail_as_poison(session: Session, worker_request: WorkerRequest) -> None:
    message = f"{MAX_ATTEMPTS} workers died while executing the request."
    error = ErrorInfo(code="poison", message=message, hint="See the logs of the workers.")
    if worker_request.kind is RequestKind.IMPORT:
        uploads.refuse_import(session, worker_request.request["detector_id"], error)
    worker_request.finished_at = time_of(session)
    _finish(worker_request, error=error)


def _lock_attempt(session: Session, lease: RequestLease, **values: Any) -> WorkerRequest:
    """Lock the request, set `values` and return it. Raise LeaseLost unless this claim still holds it."""
    this_claim = (
        WorkerRequest.id == lease.worker_request_id,
        WorkerRequest.lease_owner == lease.token,
        WorkerRequest.status == RequestStatus.RUNNING,
    )
    worker_request = session.scalar(
        update(WorkerRequest).where(*this_claim).values(**values).returning(WorkerRequest),
        execution_options={"populate_existing": True, "synchronize_session": False},
    )
    if worker_request is None:
        raise LeaseLost(f"Attempt {lease.attempt} no longer holds worker request {lease.worker_request_id}.")
    return worker_request


def _requeue(session: Session, lease: RequestLease, *, attempt_counts: bool) -> WorkerRequest:
    attempt = WorkerRequest.attempt if attempt_counts else WorkerRequest.attempt - 1
    values = {"status": RequestStatus.QUEUED, "lease_owner": None, "lease_expires_at": None}
    return _lock_attempt(session, lease, attempt=attempt, **values)


def _finish(worker_request: WorkerRequest, result: Document | None = None, error: ErrorInfo | None = None) -> None:
    worker_request.status = RequestStatus.FAILED if error else RequestStatus.SUCCEEDED
    worker_request.result, worker_request.error = result, error.model_dump() if error else None
    worker_request.lease_owner = worker_request.lease_expires_at = None
