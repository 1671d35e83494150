"""Selection of the queued jobs and worker requests whose requirements this worker meets; it skips the others.

The queue is read in a short transaction; then the cached results of the file checks are used. Nothing waits for a disk.
"""

import time
from collections.abc import Iterable

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from store.db.database import Database
from store.db.tables import Job, WorkerRequest
from store.requests import worker_requests
from store.scheduling import queue
from store.scheduling.queue import ClaimExclusions, GpuCapacity
from store.scheduling.requirements import Requirement, probe_job, requirements_of, unreadable_spec
from store.states import RequestKind, WaitingReason
from worker.dispatch.file_availability import FileAvailability

MAX_CANDIDATES = 8
"""Jobs selected at a time: if several workers claim at once, one gets the first job and the others need another one."""
MAX_REQUESTS = 64
"""Worker requests read at a time; the next selection reads those behind the skipped ones."""
FORGET_SECONDS = 30.0
"""Interval after which requirements are determined again: a name in a spec may then mean another row."""
_LIMITS = (MAX_CANDIDATES, *[8 * MAX_CANDIDATES] * 4, *[64 * MAX_CANDIDATES] * 20)
"""Rows of each query of one selection, which repeats while all rows must be skipped. The rest of a long queue is left
to the next selection."""
_MAX_EXCLUSIONS = 20_000
"""Skipped jobs at a time: databases limit the number of a query's parameters."""
_log = structlog.get_logger()


class JobSelector:
    """Selects candidates for a claim.

    Only the dispatcher's thread may use it. Raises SQLAlchemyError if the database fails.
    """

    def __init__(self, database: Database, availability: FileAvailability) -> None:
        self._database, self._availability = database, availability
        self._requirements: dict[str, tuple[Requirement, ...]] = {}
        """Requirements of the jobs and worker requests that were read lately, by id."""
        self._forget_at = 0.0

    def exclusions(self) -> ClaimExclusions:
        """Return what a claim must skip now: the jobs whose requirements are not met, and all jobs of their data sets.

        A data set is skipped by its id, so that a long queue of its jobs is not read.
        """
        unmet = {id: self._availability.unmet(requirements) for id, requirements in self._requirements.items()}
        job_ids = (id for id, requirements in unmet.items() if requirements)
        missing = (requirement for requirements in unmet.values() for requirement in requirements)
        datasets = (requirement.key for requirement in missing if requirement.reason is WaitingReason.DATASET)
        return ClaimExclusions(frozenset(job_ids), frozenset(datasets))

    def select_jobs(self, capacity: GpuCapacity) -> list[str]:
        """Return the ids of the first jobs of the queue that this worker can run, at most `MAX_CANDIDATES`."""
        self._forget_when_due()
        exclusions = self.exclusions()
        for limit in _LIMITS:
            if len(exclusions.jobs) > _MAX_EXCLUSIONS:
                break
            with self._database.read() as session:
                head = queue.peek(session, capacity, exclusions, limit)
                unread = {*filter(None, [head.reserved_for]), *head.next} - self._requirements.keys()
                self._read(session, session.scalars(select(Job).where(Job.id.in_(unread))) if unread else ())
            exclusions = self.exclusions()
            job_ids = [id for id in head.next if id not in exclusions.jobs]
            if head.reserved_for not in exclusions.jobs and (job_ids or not head.next):
                return job_ids[:MAX_CANDIDATES]
        return []

    def select_job(self, job_id: str) -> list[str]:
        """Return the id if this worker can run the job, whatever precedes it in the queue."""
        self._forget_when_due()
        if job_id not in self._requirements:
            with self._database.read() as session:
                self._read(session, session.scalars(select(Job).where(Job.id == job_id)))
        return [] if job_id in self.exclusions().jobs else [job_id]

    def select_worker_requests(self, capacity: GpuCapacity) -> list[str]:
        """Return the ids of the first worker requests that this worker can run, at most `MAX_CANDIDATES`."""
        self._forget_when_due()
        with self._database.read() as session:
            requests = worker_requests.peek(session, capacity, self.exclusions().jobs, MAX_REQUESTS)
            self._read(session, (request for request in requests if request.id not in self._requirements))
        skipped = self.exclusions().jobs
        return [request.id for request in requests if request.id not in skipped][:MAX_CANDIDATES]

    def _forget_when_due(self) -> None:
        if time.monotonic() >= self._forget_at:
            self._requirements.clear()
            self._forget_at = time.monotonic() + FORGET_SECONDS

    def _read(self, session: Session, rows: Iterable[Job | WorkerRequest]) -> None:
        for row in rows:
            try:
                self._requirements[row.id] = _requirements_of_row(session, row)
            except SQLAlchemyError:  # the queries for the other rows would fail as well
                raise
            except Exception as error:
                _log.exception("The requirements of a job cannot be determined.", id=row.id)
                self._requirements[row.id] = (unreadable_spec(row.id, row.owner, type(error).__name__),)


def _requirements_of_row(session: Session, row: Job | WorkerRequest) -> tuple[Requirement, ...]:
    if isinstance(row, Job):
        return requirements_of(session, row)
    if row.kind is not RequestKind.PROBE:
        return ()
    return requirements_of(session, probe_job(row.id, row.request, row.owner))
