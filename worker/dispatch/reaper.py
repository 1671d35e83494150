"""What killed workers and deleted data sets have left: jobs without a worker, folders without a row."""

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from store.artifacts import local_files, unpacking
from store.db.database import Database
from store.db.tables import Job, WorkerRequest
from store.jobs import lifecycle
from store.requests import worker_requests
from store.settings import Settings
from store.states import JobStatus, RequestStatus
from worker.attempt import work_folder

_log = structlog.get_logger()


def reap(database: Database) -> None:
    """Waits for no disk."""
    with database.write() as session:
        lost, orphans = lifecycle.requeue_expired(session), lifecycle.fail_dependents(session)
        worker_requests.delete_old(session)
        session.commit()
    if lost or orphans:
        _log.info("reaped", lost=lost, orphans=orphans)


def remove_work_folders(settings: Settings, database: Database) -> None:
    found = work_folder.attempts(settings.work_root)
    with database.read() as session:
        running = _running(session)
    work_folder.remove_abandoned(settings.work_root, found, running)


def remove_unused_uploads(settings: Settings, database: Database) -> None:
    """Waits for whoever registers an upload just now."""
    local_files.remove_stale(settings.uploads_root)
    if gone := unpacking.remove_unused(settings, database):
        _log.info("unpacked data sets removed", folders=gone)


def _running(session: Session) -> list[tuple[str, int]]:
    of_jobs = select(Job.id, Job.attempt).where(Job.status == JobStatus.RUNNING)
    of_worker_requests = select(WorkerRequest.id, WorkerRequest.attempt).where(
        WorkerRequest.status == RequestStatus.RUNNING
    )
    return [(id, attempt) for query in (of_jobs, of_worker_requests) for id, attempt in session.execute(query)]
