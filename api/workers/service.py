from sqlalchemy import select
from sqlalchemy.orm import Session

from api.http.auth import Caller
from api.http.schemas import Page
from api.workers.schemas import Worker
from store.db import tables
from store.db.database import Database
from store.scheduling import worker_registry


def listing(database: Database, caller: Caller) -> Page[Worker]:
    with database.read() as session:
        workers = worker_registry.alive(session)
        held = worker_registry.jobs_of(session, [worker.id for worker in workers])
        visible = _visible(session, caller, [job_id for job_ids in held.values() for job_id in job_ids])
        return Page(data=[_shown(caller, worker, held[worker.id], visible) for worker in workers])


def _visible(session: Session, caller: Caller, job_ids: list[str]) -> set[str]:
    job = tables.Job
    return set(session.scalars(select(job.id).where(job.id.in_(job_ids), caller.visible(job))))


def _shown(caller: Caller, worker: tables.Worker, held: list[str], visible: set[str]) -> Worker:
    found = {
        "running": len(held),
        "job_ids": [job_id for job_id in held if job_id in visible],
        "missing": _missing(caller, worker),
    }
    columns = {name: getattr(worker, name) for name in Worker.model_fields if name not in found}
    return Worker.model_validate(columns | found)


def _missing(caller: Caller, worker: tables.Worker) -> list[str]:
    """Of many jobs that it lacks the same for, once."""
    told = (lack for lack in worker.missing or [] if caller.is_admin or lack["owner"] == caller.owner)
    return list(dict.fromkeys(lack["message"] for lack in told))
