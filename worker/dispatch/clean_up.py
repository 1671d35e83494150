"""Removal of old jobs by the settings, and of folders without a row, left by killed workers and deleted data sets."""

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from store.artifacts import backup, local_files, unpacking
from store.artifacts.storage import open_artifacts
from store.db import audit
from store.db.database import Database
from store.db.tables import Job, WorkerRequest
from store.jobs import retention
from store.jobs.retention import Content, RetentionRules
from store.settings import Settings
from store.states import JobStatus, RequestStatus
from worker.attempt import work_folder

_log = structlog.get_logger()


def remove_work_folders(settings: Settings, database: Database) -> None:
    """Remove the work folders of attempts that no longer run."""
    attempts = work_folder.list_attempts(settings.work_root)
    with database.read() as session:
        running = _running(session)
    work_folder.remove_abandoned(settings.work_root, attempts, running)


def remove_unused_uploads(settings: Settings, database: Database) -> None:
    """Remove stale upload files and unpacked data sets without a row; wait while an upload is being registered."""
    local_files.remove_stale(settings.uploads_root)
    if removed := unpacking.remove_unused(settings, database):
        _log.info("Unused unpacked data sets were removed.", folders=removed)


def remove_expired(settings: Settings, database: Database) -> None:
    """Remove jobs, training checkpoints and metrics that are older than the settings keep them."""
    days_kept = {
        Content.JOBS: settings.keep_jobs_days,
        Content.CHECKPOINTS: settings.keep_checkpoints_days,
        Content.METRICS: settings.keep_metrics_days,
    }
    for content, days in days_kept.items():
        if days is not None:
            _remove_older_than(days, content, settings, database)


def end_killed_backup(settings: Settings) -> None:
    """Delete the files that a killed backup keeps in the trash."""
    if settings.artifacts_root and backup.end_killed(settings.artifacts_root):
        _log.warning("A backup was killed; the deleted files that it kept were removed.")


def _remove_older_than(days: float, content: Content, settings: Settings, database: Database) -> None:
    rules = RetentionRules(days * 86_400)
    with database.read() as session:
        groups = retention.expired_groups(session, rules, [content])
    artifacts = open_artifacts(settings)
    for job_id in groups:
        removed = retention.clean_group(database, artifacts, job_id, [content], rules, audit.RETENTION)
        if removed is not None:
            _log.info("The retention time of a job has ended.", job_id=job_id, removed=content, bytes=removed.bytes)


def _running(session: Session) -> list[tuple[str, int]]:
    """Return the id and attempt number of every running job and worker request."""
    jobs = select(Job.id, Job.attempt).where(Job.status == JobStatus.RUNNING)
    requests = select(WorkerRequest.id, WorkerRequest.attempt).where(WorkerRequest.status == RequestStatus.RUNNING)
    return [(id, attempt) for query in (jobs, requests) for id, attempt in session.execute(query)]
