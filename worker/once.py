"""`python -m worker --once`: run one job or worker request, then end, for schedulers that start workers themselves."""

import signal
from collections.abc import Sequence
from enum import IntEnum

import structlog
from sqlalchemy import select

from store.db.database import Database
from store.db.tables import Job, WorkerRequest
from store.jobs.lease import Lease
from store.requests.worker_requests import RequestLease
from store.settings import Settings
from store.states import JobStatus, RequestStatus
from worker.dispatch.dispatcher import Dispatcher, Once
from worker.process.trainer import COMMAND

_log = structlog.get_logger()


class ExitCode(IntEnum):
    """Exit codes of `python -m worker --once`; 1 and 2 are Python's, for errors and invalid options."""

    DONE = 0
    """The attempt has ended; the job's status has its result."""
    NOTHING_TO_DO = 3
    """There was nothing to claim."""
    RETURNED = 4
    """The job is in the queue again or another worker has it: this worker was stopped, or its attempt was lost."""


def run_once(settings: Settings, database: Database, once: Once, command: Sequence[str] = COMMAND) -> ExitCode:
    """Run one job or worker request. SIGTERM returns it to the queue with a checkpoint.

    Call it in the main thread. Raises SQLAlchemyError if the result cannot be read.
    """
    dispatcher = Dispatcher(settings, database, command, once)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: dispatcher.stop())
    dispatcher.start()
    lease = dispatcher.wait_for_end()
    if lease is None:
        _log.info("There is nothing to claim.", job_id=once.job_id, missing=dispatcher.missing_for_jobs())
        return ExitCode.NOTHING_TO_DO
    return ExitCode.DONE if _has_ended(database, lease) else ExitCode.RETURNED


def _has_ended(database: Database, lease: Lease | RequestLease) -> bool:
    """Return whether the run has ended, not merely this attempt of it. A deleted or paused job has ended."""
    with database.read() as session:
        if isinstance(lease, Lease):
            job_status = session.scalar(select(Job.status).where(Job.id == lease.job_id))
            return job_status not in (JobStatus.QUEUED, JobStatus.RUNNING)
        request = WorkerRequest
        status = session.scalar(select(request.status).where(request.id == lease.worker_request_id))
    return status not in (RequestStatus.QUEUED, RequestStatus.RUNNING)
