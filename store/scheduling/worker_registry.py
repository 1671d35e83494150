"""The worker registry: each worker registers itself about as often as it renews its leases."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from store.db.database import insert, now
from store.db.tables import Attempt, Document, Job, Worker
from store.states import AttemptEnd, JobStatus

ALIVE_SECONDS = 60.0
"""A worker whose registration is older than this counts as dead."""
RECENTLY_SEEN_SECONDS = 3600.0
"""Dead workers are listed by `recently_seen` for this long."""
RETENTION_SECONDS = 86_400.0
"""Registrations older than this are deleted."""


def register(
    session: Session,
    id: str,
    *,
    name: str | None = None,
    host: str,
    version: str,
    concurrency: int,
    gpus: list[Document],
    nodes: int = 1,
    draining: bool = False,
    missing: Sequence[Document] = (),
) -> None:
    """Insert or update the worker's registration; the arguments are the columns of `Worker`."""
    values: dict[str, Any] = {
        "name": name,
        "host": host,
        "version": version,
        "concurrency": concurrency,
        "gpus": gpus,
        "nodes": nodes,
        "draining": draining,
    }
    values |= {"missing": list(missing)}
    statement = insert(session, Worker).values(id=id, **values, seen_at=now())
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values | {"seen_at": now()}))
    session.execute(delete(Worker).where(Worker.seen_at < now() - RETENTION_SECONDS))


def deregister(session: Session, id: str) -> None:
    """Delete the registration of a worker that ends cleanly."""
    session.execute(delete(Worker).where(Worker.id == id))


def alive(session: Session) -> Sequence[Worker]:
    """Return the workers that are alive, oldest first."""
    query = select(Worker).where(_is_alive()).order_by(Worker.started_at, Worker.id)
    return session.scalars(query).all()


def recently_seen(session: Session) -> Sequence[Worker]:
    """Return the workers that are alive, and those that died within the last hour.

    A dead worker is omitted if another one was started under its name since.
    """
    another = aliased(Worker)
    replaced = exists().where(another.name == Worker.name, another.started_at > Worker.seen_at)
    is_recent = Worker.seen_at > now() - RECENTLY_SEEN_SECONDS
    return session.scalars(select(Worker).where(is_recent, or_(_is_alive(), ~replaced))).all()


def jobs_of(session: Session, worker_ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the ids of the running jobs by worker id; every given worker has an entry."""
    jobs: dict[str, list[str]] = {id: [] for id in worker_ids}
    running = select(Job.lease_owner, Job.id).where(Job.status == JobStatus.RUNNING, Job.lease_owner.in_(worker_ids))
    for worker_id, job_id in session.execute(running.order_by(Job.id)):
        jobs[str(worker_id)].append(job_id)
    return jobs


def failures_in_a_row(session: Session, worker_ids: Sequence[str]) -> dict[str, int]:
    """Return the number of jobs with a crashed or lost attempt since the last attempt that ended well, by worker id.

    A job counts once, so that a job whose trainer dies everywhere does not make its worker look broken.
    """
    well = select(Attempt.owner, func.max(Attempt.ended_at).label("at")).where(
        Attempt.owner.in_(worker_ids), Attempt.end.in_((AttemptEnd.SUCCEEDED, AttemptEnd.FAILED, AttemptEnd.CANCELLED))
    )
    last_well = well.group_by(Attempt.owner).subquery()
    failed = (
        select(Attempt.owner, func.count(Attempt.job_id.distinct()))
        .outerjoin(last_well, last_well.c.owner == Attempt.owner)
        .where(
            Attempt.owner.in_(worker_ids),
            Attempt.end.in_((AttemptEnd.CRASHED, AttemptEnd.LOST)),
            Attempt.ended_at > func.coalesce(last_well.c.at, 0.0),
        )
    )
    rows = session.execute(failed.group_by(Attempt.owner)).tuples()
    return dict.fromkeys(worker_ids, 0) | dict(rows.all())


def _is_alive() -> ColumnElement[bool]:
    return Worker.seen_at > now() - ALIVE_SECONDS
