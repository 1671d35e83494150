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
from store.db.tables import Document, Errand
from store.errors import LeaseLost
from store.scheduling.queue import CPU_ONLY, Room
from store.states import ErrandKind, ErrandStatus

T = TypeVar("T")
ATTEMPTS = 3
"""So many workers may die over an errand."""
KEPT_SECONDS = 7 * 86_400.0
"""For whoever asked to look at what was found."""
_PREFIX: dict[ErrandKind, ids.Prefix] = {ErrandKind.PROBE: "plan", ErrandKind.IMPORT: "import"}


@dataclass(frozen=True)
class ErrandLease:
    errand_id: str
    attempt: int
    kind: ErrandKind
    owner: str
    """Whose it is."""
    request: Document
    devices: int | None
    token: str
    """Of this one claim: the attempts of errands do not only grow."""


def add(session: Session, kind: ErrandKind, request: Document, *, owner: str, devices: int | None = 0) -> Errand:
    errand = Errand(id=ids.new_id(_PREFIX[kind]), kind=kind, owner=owner, request=request, devices=devices)
    session.add(errand)
    session.flush()
    return errand


def look_ahead(session: Session, room: Room, leaving: Collection[str], limit: int) -> Sequence[Errand]:
    """What `claim` chooses from."""
    return session.scalars(_free(select(Errand), room).where(Errand.id.not_in(leaving)).limit(limit)).all()


def claim(
    session: Session,
    owner: str,
    lease_seconds: float,
    room: Room = CPU_ONLY,
    *,
    among: Collection[str] | None = None,
) -> ErrandLease | None:
    """The oldest that nobody has, or that somebody had and lost, and that fits the room; `among`: of these alone."""
    token = f"{owner}/{secrets.token_hex(4)}"
    oldest = _free(select(Errand.id), room)
    if among is not None:
        oldest = oldest.where(Errand.id.in_(among))
    taken = session.scalar(
        update(Errand)
        .where(Errand.id == oldest.limit(1).with_for_update(skip_locked=True).scalar_subquery())
        .values(
            status=ErrandStatus.RUNNING,
            attempt=Errand.attempt + 1,
            lease_owner=token,
            lease_expires_at=now() + lease_seconds,
        )
        .returning(Errand),
        execution_options={"populate_existing": True, "synchronize_session": False},
    )
    if taken is None:
        return None
    if taken.attempt > ATTEMPTS:
        _give_up(session, taken)
        return None
    return ErrandLease(taken.id, taken.attempt, taken.kind, taken.owner, taken.request, taken.devices, token)


def renew(session: Session, lease: ErrandLease, lease_seconds: float) -> None:
    """Raises LeaseLost."""
    _hold(session, lease, lease_expires_at=now() + lease_seconds)


def settle(
    session: Session, lease: ErrandLease, *, result: Document | None = None, error: ErrorInfo | None = None
) -> None:
    """Exactly one of the two. Raises LeaseLost."""
    _end(_hold(session, lease, finished_at=now()), result, error)


def give_back(session: Session, lease: ErrandLease) -> None:
    """To be taken by another worker; not held against it. Raises LeaseLost."""
    errand = _hold(session, lease, attempt=Errand.attempt - 1)
    errand.status, errand.lease_owner, errand.lease_expires_at = ErrandStatus.QUEUED, None, None


def try_again(session: Session, lease: ErrandLease, delay: float, *, attempt_counts: bool) -> None:
    """To be taken by any worker after `delay` seconds: its lease runs out then. Raises LeaseLost."""
    attempt = Errand.attempt if attempt_counts else Errand.attempt - 1
    _hold(session, lease, attempt=attempt, lease_owner=None, lease_expires_at=now() + delay)


def forget_old(session: Session) -> None:
    """What ended so long ago that nobody asks for it any more."""
    ended = Errand.status.in_([ErrandStatus.SUCCEEDED, ErrandStatus.FAILED])
    session.execute(delete(Errand).where(ended, Errand.finished_at < now() - KEPT_SECONDS))


def _free(query: Select[T], room: Room) -> Select[T]:
    lost = (Errand.status == ErrandStatus.RUNNING) & (Errand.lease_expires_at < now())
    fits = func.coalesce(Errand.devices, min(1, room.gpus)) <= room.free
    return query.where(or_(Errand.status == ErrandStatus.QUEUED, lost), fits).order_by(Errand.created_at)


def _give_up(session: Session, errand: Errand) -> None:
    problem = ErrorInfo(code="poison", message=f"{ATTEMPTS} workers died over it.", hint="See the workers' logs.")
    if errand.kind is ErrandKind.IMPORT:
        uploads.refuse_import(session, errand.request["detector_id"], problem)
    errand.finished_at = time_of(session)
    _end(errand, error=problem)


def _hold(session: Session, lease: ErrandLease, **values: Any) -> Errand:
    this_claim = (
        Errand.id == lease.errand_id,
        Errand.lease_owner == lease.token,
        Errand.status == ErrandStatus.RUNNING,
    )
    held = session.scalar(
        update(Errand).where(*this_claim).values(**values).returning(Errand),
        execution_options={"populate_existing": True, "synchronize_session": False},
    )
    if held is None:
        raise LeaseLost(f"Attempt {lease.attempt} no longer holds errand {lease.errand_id}.")
    return held


def _end(errand: Errand, result: Document | None = None, error: ErrorInfo | None = None) -> None:
    errand.status = ErrandStatus.FAILED if error else ErrandStatus.SUCCEEDED
    errand.result, errand.error = result, error.model_dump() if error else None
    errand.lease_owner = errand.lease_expires_at = None
