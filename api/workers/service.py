"""List the registered workers."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.http.auth import Caller
from api.http.schemas import Page
from api.workers.schemas import Worker
from store.db import tables
from store.db.database import Database
from store.scheduling import worker_registry


def list_workers(database: Database, caller: Caller) -> Page[Worker]:
    """Return the workers with a heartbeat in the last minute, with the job ids that the caller may see."""
    with database.read() as session:
        workers = worker_registry.alive(session)
        ids = [worker.id for worker in workers]
        running, failures = worker_registry.jobs_of(session, ids), worker_registry.failures_in_a_row(session, ids)
        visible = _visible_job_ids(session, caller, [job_id for job_ids in running.values() for job_id in job_ids])
        return Page(
            data=[_to_schema(caller, worker, running[worker.id], failures[worker.id], visible) for worker in workers]
        )


def _visible_job_ids(session: Session, caller: Caller, job_ids: list[str]) -> set[str]:
    job = tables.Job
    return set(session.scalars(select(job.id).where(job.id.in_(job_ids), caller.visible(job))))


def _to_schema(caller: Caller, worker: tables.Worker, running: list[str], failures: int, visible: set[str]) -> Worker:
    computed = {
        "running": len(running),
        "failures_in_a_row": failures,
        "job_ids": [job_id for job_id in running if job_id in visible],
        "missing": _missing(caller, worker),
    }
    columns = {name: getattr(worker, name) for name in Worker.model_fields if name not in computed}
    return Worker.model_validate(columns | computed)


def _missing(caller: Caller, worker: tables.Worker) -> list[str]:
    """Return the messages of the caller's unmet requirements without duplicates."""
    of_jobs = [item for item in worker.missing or [] if item["owner"] is not None]
    visible = (item for item in of_jobs if caller.is_admin or item["owner"] == caller.owner)
    return list(dict.fromkeys(item["message"] for item in visible))
