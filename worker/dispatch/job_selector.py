"""Selection of the queued jobs and worker requests whose requirements this worker meets; it skips the others.

The queue is read in a short transaction; then the cached results of the file checks are used. Nothing waits for a disk.
"""

import time
from collections.abc import Sequence

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
from store.states import RequestKind
from worker.dispatch import file_availability
from worker.dispatch.file_availability import FileAvailability

MAX_CANDIDATES = 8
"""Jobs selected at a time: if several workers claim at once, one gets the first job and the others need another one."""
_LIMITS = (MAX_CANDIDATES, *[8 * MAX_CANDIDATES] * 4, *[64 * MAX_CANDIDATES] * 20)
"""Rows of each query of one selection, which repeats while all rows must be skipped. The rest of a long queue is left
to the next selection."""
_MAX_EXCLUSIONS = 20_000
"""Skipped jobs at a time: databases limit the number of a query's parameters."""
_CachedRequirements = tuple[float, tuple[Requirement, ...]]
_log = structlog.get_logger()


class JobSelector:
    """Selects candidates for a claim and remembers which jobs to skip.

    Only the dispatcher's thread may use it. Raises SQLAlchemyError if the database fails.
    """

    def __init__(self, database: Database, available: FileAvailability) -> None:
        self._database, self._availability = database, available
        self._skipped_until: dict[str, float] = {}
        """Time until which a job is skipped, by id."""
        self._unchecked: set[str] = set()
        """Ids skipped until the next selection: their requirements are not checked yet."""
        self._requirements: dict[str, _CachedRequirements] = {}
        """Requirements by id, and the time until which they are valid: a name in a spec may later mean another row."""
        self._logged: set[str] = set()

    @property
    def exclusions(self) -> ClaimExclusions:
        """The jobs and data sets that a claim must skip now."""
        now = time.monotonic()
        self._skipped_until = {id: until for id, until in self._skipped_until.items() if until > now}
        skipped = frozenset(self._skipped_until) | self._unchecked
        return ClaimExclusions(skipped, self._availability.missing_datasets())

    def select_jobs(self, capacity: GpuCapacity) -> list[str]:
        """Return the ids of the first jobs of the queue that this worker can run, at most `MAX_CANDIDATES`."""
        self._unchecked.clear()
        for limit in _LIMITS:
            if len(self._skipped_until) + len(self._unchecked) > _MAX_EXCLUSIONS:
                break
            with self._database.read() as session:
                head = queue.peek(session, capacity, self.exclusions, limit)
                reserved_for = [head.reserved_for] if head.reserved_for else []
                self._load_requirements(session, [*reserved_for, *head.next])
            drops_reservation = any(map(self._must_skip, reserved_for))
            job_ids = [job_id for job_id in head.next if not self._must_skip(job_id)]
            if not drops_reservation and (job_ids or not head.next):
                return job_ids[:MAX_CANDIDATES]
        return []

    def select_worker_requests(self, capacity: GpuCapacity) -> list[str]:
        """Return the ids of the first worker requests that this worker can run, at most `MAX_CANDIDATES`."""
        self._unchecked.clear()
        for limit in _LIMITS:
            with self._database.read() as session:
                requests = worker_requests.peek(session, capacity, self.exclusions.jobs, limit)
                for request in requests:
                    self._cache_requirements(session, request)
            request_ids = [request.id for request in requests if not self._must_skip(request.id)]
            if request_ids or not requests:
                return request_ids[:MAX_CANDIDATES]
        return []

    def _load_requirements(self, session: Session, job_ids: Sequence[str]) -> None:
        now = time.monotonic()
        self._requirements = {id: cached for id, cached in self._requirements.items() if cached[0] > now}
        uncached = [id for id in job_ids if id not in self._requirements]
        for job in session.scalars(select(Job).where(Job.id.in_(uncached))) if uncached else ():
            self._cache_requirements(session, job)

    def _cache_requirements(self, session: Session, row: Job | WorkerRequest) -> None:
        try:
            requirements = _requirements_of_row(session, row)
        except SQLAlchemyError:  # the queries for the other rows would fail as well
            raise
        except Exception as error:
            requirements = (unreadable_spec(row.id, row.owner, type(error).__name__),)
            if row.id not in self._logged:
                self._logged.add(row.id)
                _log.exception("The requirements of a job cannot be determined.", id=row.id)
        self._requirements[row.id] = (time.monotonic() + file_availability.RECHECK_SECONDS, requirements)

    def _must_skip(self, id: str) -> bool:
        _, requirements = self._requirements.get(id, (0.0, ()))
        is_missing = self._availability.misses_any(requirements)
        if is_missing is None:
            self._unchecked.add(id)
        elif is_missing:
            self._skipped_until[id] = time.monotonic() + file_availability.RECHECK_SECONDS
        return is_missing is not False


def _requirements_of_row(session: Session, row: Job | WorkerRequest) -> tuple[Requirement, ...]:
    if isinstance(row, Job):
        return requirements_of(session, row)
    if row.kind is not RequestKind.PROBE:
        return ()
    return requirements_of(session, probe_job(row.id, row.request, row.owner))
