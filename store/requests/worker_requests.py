"""Work of seconds that needs a worker and is no job. Leased and fenced as jobs are, and simpler: no events, no files.

Every function takes a session of `Database.write` and leaves the commit to its caller.
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Select, delete, func, or_, select, update
from sqlalchemy.orm import Session

from frs.events import ErrorInfo
from store.artifacts import uploads
from store.db import ids
from store.db.database import now, time_of
from store.db.tables import Document, WorkerRequest
from store.errors import LeaseLost
from store.scheduling.queue import CPU_ONLY, GpuCapacity
from store.states import RequestKind, RequestStatus

T = TypeVar("T")
MAX_ATTEMPTS = 3
"""So many workers may die over an worker_request."""
RETENTION_SECONDS = 7 * 86_400.0
"""For whoever asked to look at what was found."""
_PREFIX: dict[RequestKind, ids.Prefix] = {RequestKind.PROBE: "plan", RequestKind.IMPORT: "import"}


@dataclass(frozen=True)
class RequestLease:
    worker_request_id: str
    attempt: int
    kind: RequestKind
    owner: str
    """Whose it is."""
    request: Document
    devices: int | None
    token: str
    """Of this one claim: the attempts of worker_requests do not only grow."""


def add(
    session: Session, kind: RequestKind, request: Document, *, owner: str, devices: int | None = 0
) -> WorkerRequest:
    worker_request = WorkerRequest(
        id=ids.new_id(_PREFIX[kind]), kind=kind, owner=owner, request=request, devices=devices
    )
    session.add(worker_request)
    session.flush()
    return worker_request


def look_ahead(
    session: Session, capacity: GpuCapacity, exclusions: Collection[str], limit: int
) -> Sequence[WorkerRequest]:
    """What `claim` chooses from."""
    return session.scalars(
        _claimable(select(WorkerRequest), capacity).where(WorkerRequest.id.not_in(exclusions)).limit(limit)
    ).all()


def claim(
    session: Session,
    owner: str,
    lease_seconds: float,
    capacity: GpuCapacity = CPU_ONLY,
    *,
    among: Collection[str] | None = None,
) -> RequestLease | None:
    """The oldest that nobody has, or that somebody had and lost, and that fits the capacity; `among`: of these alone."""
    token = f"{owner}/{secrets.token_hex(4)}"
    oldest = _claimable(select(WorkerRequest.id), capacity)
    if among is not None:
        oldest = oldest.where(WorkerRequest.id.in_(among))
    taken = session.scalar(
        update(WorkerRequest)
        .where(WorkerRequest.id == oldest.limit(1).with_for_update(skip_locked=True).scalar_subquery())
        .values(
            status=RequestStatus.RUNNING,
            attempt=WorkerRequest.attempt + 1,
            lease_owner=token,
            lease_expires_at=now() + lease_seconds,
        )
        .returning(WorkerRequest),
        execution_options={"populate_existing": True, "synchronize_session": False},
    )
    if taken is None:
        return None
    if taken.attempt > MAX_ATTEMPTS:
        _give_up(session, taken)
        return None
    return RequestLease(taken.id, taken.attempt, taken.kind, taken.owner, taken.request, taken.devices, token)


def renew(session: Session, lease: RequestLease, lease_seconds: float) -> None:
    """Raises LeaseLost."""
    _lock_attempt(session, lease, lease_expires_at=now() + lease_seconds)


def finish(
    session: Session, lease: RequestLease, *, result: Document | None = None, error: ErrorInfo | None = None
) -> None:
    """Exactly one of the two. Raises LeaseLost."""
    _finish(_lock_attempt(session, lease, finished_at=now()), result, error)


def give_back(session: Session, lease: RequestLease) -> None:
    """To be taken by another worker; not held against it. Raises LeaseLost."""
    worker_request = _lock_attempt(session, lease, attempt=WorkerRequest.attempt - 1)
    worker_request.status, worker_request.lease_owner, worker_request.lease_expires_at = (
        RequestStatus.QUEUED,
        None,
        None,
    )


def retry_later(session: Session, lease: RequestLease, delay: float, *, attempt_counts: bool) -> None:
    """To be taken by any worker after `delay` seconds: its lease runs out then. Raises LeaseLost."""
    attempt = WorkerRequest.attempt if attempt_counts else WorkerRequest.attempt - 1
    _lock_attempt(session, lease, attempt=attempt, lease_owner=None, lease_expires_at=now() + delay)


def delete_old(session: Session) -> None:
    """What ended so long ago that nobody asks for it any more."""
    ended = WorkerRequest.status.in_([RequestStatus.SUCCEEDED, RequestStatus.FAILED])
    session.execute(delete(WorkerRequest).where(ended, WorkerRequest.finished_at < now() - RETENTION_SECONDS))


def _claimable(query: Select[T], capacity: GpuCapacity) -> Select[T]:
    lost = (WorkerRequest.status == RequestStatus.RUNNING) & (WorkerRequest.lease_expires_at < now())
    fits = func.coalesce(WorkerRequest.devices, min(1, capacity.gpus)) <= capacity.free
    return query.where(or_(WorkerRequest.status == RequestStatus.QUEUED, lost), fits).order_by(WorkerRequest.created_at)


def _give_up(session: Session, worker_request: WorkerRequest) -> None:
    problem = ErrorInfo(code="poison", message=f"{MAX_ATTEMPTS} workers died over it.", hint="See the workers' logs.")
    if worker_request.kind is RequestKind.IMPORT:
        uploads.refuse_import(session, worker_request.request["detector_id"], problem)
    worker_request.finished_at = time_of(session)
    _finish(worker_request, error=problem)


def _lock_attempt(session: Session, lease: RequestLease, **values: Any) -> WorkerRequest:
    this_claim = (
        WorkerRequest.id == lease.worker_request_id,
        WorkerRequest.lease_owner == lease.token,
        WorkerRequest.status == RequestStatus.RUNNING,
    )
    held = session.scalar(
        update(WorkerRequest).where(*this_claim).values(**values).returning(WorkerRequest),
        execution_options={"populate_existing": True, "synchronize_session": False},
    )
    if held is None:
        raise LeaseLost(f"Attempt {lease.attempt} no longer holds worker_request {lease.worker_request_id}.")
    return held


def _finish(worker_request: WorkerRequest, result: Document | None = None, error: ErrorInfo | None = None) -> None:
    worker_request.status = RequestStatus.FAILED if error else RequestStatus.SUCCEEDED
    worker_request.result, worker_request.error = result, error.model_dump() if error else None
    worker_request.lease_owner = worker_request.lease_expires_at = None
