"""What killed workers and deleted data sets have left: jobs without a worker, folders without a row."""

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from store import errands, folders, jobs, unpacking
from store.database import Database
from store.settings import Settings
from store.states import ErrandStatus, JobStatus
from store.tables import Errand, Job
from worker import workfolder

_log = structlog.get_logger()


def reap(database: Database) -> None:
    """Waits for no disk."""
    with database.write() as session:
        lost, orphans = jobs.requeue_lost(session), jobs.fail_orphans(session)
        errands.forget_old(session)
        session.commit()
    if lost or orphans:
        _log.info("reaped", lost=lost, orphans=orphans)


def sweep_work(settings: Settings, database: Database) -> None:
    found = workfolder.attempts(settings.work_root)
    with database.read() as session:
        running = _running(session)
    workfolder.sweep(settings.work_root, found, running)


def sweep_uploads(settings: Settings, database: Database) -> None:
    """Waits for whoever registers an upload just now."""
    folders.sweep(settings.uploads_root)
    if gone := unpacking.sweep_unused(settings, database):
        _log.info("unpacked data sets removed", folders=gone)


def _running(session: Session) -> list[tuple[str, int]]:
    of_jobs = select(Job.id, Job.attempt).where(Job.status == JobStatus.RUNNING)
    of_errands = select(Errand.id, Errand.attempt).where(Errand.status == ErrandStatus.RUNNING)
    return [(id, attempt) for query in (of_jobs, of_errands) for id, attempt in session.execute(query)]
