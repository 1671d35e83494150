"""Which of the jobs and worker_requests in line this worker may take: those it has everything for. The others it leaves alone.

The line is read in a short transaction, and then it is asked what is known of the disk; nobody waits for a disk here.
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
from worker.dispatch import availability
from worker.dispatch.availability import Availability

MAX_CANDIDATES = 8
"""So many are looked at together: where several workers claim at a time, all but one must take another."""
_LIMITS = (MAX_CANDIDATES, *[8 * MAX_CANDIDATES] * 4, *[64 * MAX_CANDIDATES] * 20)
"""Of one look after another, while all that is seen must be left: the rest of a long line is for the next turn."""
_MAX_EXCLUSIONS = 20_000
"""At a time: databases take so many parameters and not many more."""
_Remembered = tuple[float, tuple[Requirement, ...]]
_log = structlog.get_logger()


class JobSelector:
    """Only one thread may use it."""

    def __init__(self, database: Database, its_stock: Availability) -> None:
        self._database, self._availability = database, its_stock
        self._left: dict[str, float] = {}
        """Until when, by id."""
        self._put_off: set[str] = set()
        """Until the next look at the line: of what they need it is not known yet whether it is here."""
        self._needs: dict[str, _Remembered] = {}
        """And until when: the names in a spec may mean something else a while later."""
        self._logged: set[str] = set()

    @property
    def exclusions(self) -> ClaimExclusions:
        now = time.monotonic()
        self._left = {id: until for id, until in self._left.items() if until > now}
        return ClaimExclusions(frozenset(self._left) | self._put_off, self._availability.lacking())

    def jobs(self, capacity: GpuCapacity) -> list[str]:
        """Ids of the first that this worker can run, in line."""
        self._put_off.clear()
        for limit in _LIMITS:
            if len(self._left) + len(self._put_off) > _MAX_EXCLUSIONS:
                break
            with self._database.read() as session:
                ahead = queue.peek(session, capacity, self.exclusions, limit)
                overtaken = [ahead.overtaken] if ahead.overtaken else []
                self._look_up(session, [*overtaken, *ahead.next])
            held_up = any(map(self._must_leave, overtaken))
            found = [job_id for job_id in ahead.next if not self._must_leave(job_id)]
            if not held_up and (found or not ahead.next):
                return found[:MAX_CANDIDATES]
        return []

    def worker_requests(self, capacity: GpuCapacity) -> list[str]:
        """As `jobs`."""
        self._put_off.clear()
        for limit in _LIMITS:
            with self._database.read() as session:
                ahead = worker_requests.look_ahead(session, capacity, self.exclusions.jobs, limit)
                for worker_request in ahead:
                    self._remember(session, worker_request)
            found = [worker_request.id for worker_request in ahead if not self._must_leave(worker_request.id)]
            if found or not ahead:
                return found[:MAX_CANDIDATES]
        return []

    def _look_up(self, session: Session, job_ids: Sequence[str]) -> None:
        now = time.monotonic()
        self._needs = {id: remembered for id, remembered in self._needs.items() if remembered[0] > now}
        unknown = [id for id in job_ids if id not in self._needs]
        for job in session.scalars(select(Job).where(Job.id.in_(unknown))) if unknown else ():
            self._remember(session, job)

    def _remember(self, session: Session, row: Job | WorkerRequest) -> None:
        try:
            needs = requirements_of(session, row) if isinstance(row, Job) else _request_requirements(session, row)
        except SQLAlchemyError:  # the others' would fail as well
            raise
        except Exception as error:
            needs = (unreadable_spec(row.id, row.owner, type(error).__name__),)
            if row.id not in self._logged:
                self._logged.add(row.id)
                _log.exception("needs not understood", id=row.id)
        self._needs[row.id] = (time.monotonic() + availability.RECHECK_SECONDS, needs)

    def _must_leave(self, id: str) -> bool:
        _, needs = self._needs.get(id, (0.0, ()))
        missing = self._availability.misses_any(needs)
        if missing is None:
            self._put_off.add(id)
        elif missing:
            self._left[id] = time.monotonic() + availability.RECHECK_SECONDS
        return missing is not False


def _request_requirements(session: Session, worker_request: WorkerRequest) -> tuple[Requirement, ...]:
    if worker_request.kind is not RequestKind.PROBE:
        return ()
    return requirements_of(session, probe_job(worker_request.id, worker_request.request, worker_request.owner))
