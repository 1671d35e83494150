"""Which workers there are: each says so itself, about as often as it renews its leases."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, or_, select
from sqlalchemy.orm import Session, aliased

from store.db.database import insert, now
from store.db.tables import Document, Job, Worker
from store.states import JobStatus

ALIVE_SECONDS = 60.0
"""A worker that said nothing for so long is gone."""
SILENT_SECONDS = 3600.0
"""So long somebody is told of it."""
RETENTION_SECONDS = 86_400.0


def register(
    session: Session,
    id: str,
    *,
    host: str,
    version: str,
    concurrency: int,
    gpus: list[Document],
    draining: bool = False,
    missing: Sequence[Document] = (),
) -> None:
    said: dict[str, Any] = {
        "host": host,
        "version": version,
        "concurrency": concurrency,
        "gpus": gpus,
        "draining": draining,
    }
    said |= {"missing": list(missing)}
    statement = insert(session, Worker).values(id=id, **said, seen_at=now())
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=said | {"seen_at": now()}))
    session.execute(delete(Worker).where(Worker.seen_at < now() - RETENTION_SECONDS))


def deregister(session: Session, id: str) -> None:
    """It has ended in good order."""
    session.execute(delete(Worker).where(Worker.id == id))


def alive(session: Session) -> Sequence[Worker]:
    """Oldest first."""
    query = select(Worker).where(_is_alive()).order_by(Worker.started_at, Worker.id)
    return session.scalars(query).all()


def recently_seen(session: Session) -> Sequence[Worker]:
    """The alive, and for an hour those that fell silent, unless another was started on their host since."""
    another = aliased(Worker)
    replaced = exists().where(another.host == Worker.host, another.started_at > Worker.seen_at)
    lately = Worker.seen_at > now() - SILENT_SECONDS
    return session.scalars(select(Worker).where(lately, or_(_is_alive(), ~replaced))).all()


def jobs_of(session: Session, worker_ids: Sequence[str]) -> dict[str, list[str]]:
    """Ids of the jobs each of them runs."""
    held: dict[str, list[str]] = {id: [] for id in worker_ids}
    running = select(Job.lease_owner, Job.id).where(Job.status == JobStatus.RUNNING, Job.lease_owner.in_(worker_ids))
    for worker_id, job_id in session.execute(running.order_by(Job.id)):
        held[str(worker_id)].append(job_id)
    return held


def _is_alive() -> ColumnElement[bool]:
    return Worker.seen_at > now() - ALIVE_SECONDS
