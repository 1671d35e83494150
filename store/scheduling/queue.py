"""The job queue: its order, which jobs a worker can claim, and GPUs reserved for large jobs.

Jobs are ordered by priority, then age. A smaller job may overtake a larger one that does not fit the free GPUs, but not
forever (`RESERVATION_SECONDS`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, groupby
from operator import itemgetter

from sqlalchemy import ColumnElement, Row, ScalarSelect, Select, and_, exists, func, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from store.db.database import now
from store.db.queries import is_compared
from store.db.tables import Job
from store.states import JobStatus

RESERVATION_SECONDS = 600.0
"""After 10 min in the queue, free GPUs are reserved for a job that fits this worker but not its free GPUs."""


@dataclass(frozen=True)
class GpuCapacity:
    """The GPUs of a worker, and how many of them are free."""

    gpus: int
    free: int

    def gpus_needed(self, job: type[Job]) -> ColumnElement[int]:
        """Return the number of GPUs the job takes on this worker: by default one if the worker has any."""
        return func.coalesce(job.devices, min(1, self.gpus))


CPU_ONLY = GpuCapacity(gpus=0, free=0)
"""The capacity of a worker without GPUs."""


@dataclass(frozen=True)
class ClaimExclusions:
    """Jobs that a worker skips because it does not meet their requirements."""

    jobs: frozenset[str] = frozenset()
    """Ids of jobs."""
    datasets: frozenset[str] = frozenset()
    """Ids of data sets; all jobs that train on them are skipped."""

    def conditions(self, job: type[Job]) -> list[ColumnElement[bool]]:
        """Return the conditions that a job is not excluded; an empty list if there are no exclusions."""
        by_column = ((job.id, self.jobs), (job.dataset_id, self.datasets))
        return [column.not_in(sorted(ids)) for column, ids in by_column if ids]


@dataclass(frozen=True)
class QueueHead:
    """The first jobs of the queue that a worker can run."""

    next: Sequence[str]
    """Ids of the jobs, in queue order."""
    reserved_for: str | None
    """Id of the job that free GPUs are reserved for."""


NO_EXCLUSIONS = ClaimExclusions()
_candidate, _other = aliased(Job), aliased(Job)
"""Created once, like `_runnable`: creating the columns of an alias takes longer than SQLite takes for the query."""


def peek(session: Session, capacity: GpuCapacity, exclusions: ClaimExclusions, limit: int) -> QueueHead:
    """Return the first `limit` jobs that `lock_next` chooses from, without locking them."""
    reserved_for = _reserved_for(session, capacity, exclusions)
    query = _fits_capacity(capacity, exclusions, reserved_for).limit(limit)
    return QueueHead(session.scalars(query).all(), reserved_for)


def lock_next(
    session: Session,
    capacity: GpuCapacity,
    among: Collection[str] | None = None,
    exclusions: ClaimExclusions = NO_EXCLUSIONS,
) -> ScalarSelect[str]:
    """Return a subquery for the id of the first job that fits the capacity; it locks the job's row.

    `among` restricts the choice to these ids.
    """
    query = _fits_capacity(capacity, exclusions, _reserved_for(session, capacity, exclusions), among)
    return query.with_for_update(skip_locked=True, of=_candidate).limit(1).scalar_subquery()


def precedes(one: type[Job], other: type[Job]) -> ColumnElement[bool]:
    """Return the condition that `one` is before `other` in the queue: by priority, then age."""
    older = tuple_(one.created_at, one.id) < tuple_(other.created_at, other.id)
    return or_(one.priority > other.priority, and_(one.priority == other.priority, older))


def positions(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """Return the queue positions (1 is next) of the given jobs that are queued.

    The query makes one pass over the index for any number of jobs: each counts only the jobs between itself and the
    given job before it.
    """
    statuses = session.execute(select(Job.id, Job.status).where(Job.id.in_(job_ids)))
    queued = [id for id, status in statuses if status == JobStatus.QUEUED]  # in SQL, SQLite would scan the whole queue
    by_priority = queue_lengths(session) if queued else {}
    position_of: dict[str, int] = {}
    for priority, group in groupby(_rows_with_counts(session, queued), itemgetter(1)):
        rows = list(group)
        ahead = sum(length for other, length in by_priority.items() if other > priority)
        older_jobs = accumulate(older for _, _, older, _ in rows)
        position_of |= {id: ahead + older + ties + 1 for (id, _, _, ties), older in zip(rows, older_jobs, strict=True)}
    return position_of


def jobs_in_order(
    session: Session, *conditions: ColumnElement[bool], limit: int, after: tuple[int, float, str] | None = None
) -> list[Job]:
    """Return the first `limit` queued jobs that meet the conditions, in queue order.

    `after` is the priority, creation time and id of the last job of the previous page. Each priority is queried
    separately because no single index has the order of the whole queue.
    """
    jobs: list[Job] = []
    for priority in queue_lengths(session):
        if len(jobs) == limit:
            break
        if after is not None and priority > after[0]:
            continue
        query = select(Job).where(Job.status == JobStatus.QUEUED, Job.priority == priority, *conditions)
        if after is not None and priority == after[0]:
            query = query.where(tuple_(Job.created_at, Job.id) > after[1:])
        jobs += session.scalars(query.order_by(Job.created_at, Job.id).limit(limit - len(jobs)))
    return jobs


def position_of_new_job(session: Session, priority: int) -> int:
    """Return the position of a new job: behind all queued jobs of the same or a higher priority."""
    is_ahead = (Job.status == JobStatus.QUEUED, Job.priority >= priority)
    return 1 + session.scalars(select(func.count()).where(*is_ahead).select_from(Job)).one()


def queue_lengths(session: Session) -> dict[int, int]:
    """Return the number of queued jobs by priority, highest priority first."""
    query = select(Job.priority, func.count()).where(Job.status == JobStatus.QUEUED).group_by(Job.priority)
    rows = session.execute(query.order_by(Job.priority.desc())).all()
    return {row[0]: row[1] for row in rows}


def _rows_with_counts(session: Session, queued: Sequence[str]) -> Sequence[Row[str, int, int, int]]:
    """Return a row for each of the queued jobs, in queue order.

    Its columns: id; priority; the number of queued jobs of that priority that are older than this row and not older
    than the previous row of that priority (`positions` sums these); the number of jobs of the same age and a smaller
    id.
    """
    queue_order = (Job.created_at, Job.id)
    before = func.lag(Job.created_at).over(partition_by=Job.priority, order_by=queue_order)
    rows = select(Job.id, Job.priority, Job.created_at, before.label("before")).where(Job.id.in_(queued)).cte("wanted")
    row, other = rows.c, aliased(Job)
    same_priority = select(func.count()).where(other.status == JobStatus.QUEUED, other.priority == row.priority)
    between = and_(other.created_at >= func.coalesce(row.before, 0.0), other.created_at < row.created_at)
    older = same_priority.where(between).correlate(rows).scalar_subquery()
    is_tie = (other.created_at == row.created_at, other.id < row.id)
    ties = same_priority.where(*is_tie).correlate(rows).scalar_subquery()
    query = select(row.id, row.priority, older, ties)
    return session.execute(query.order_by(row.priority.desc(), row.created_at, row.id)).all()


@cache
def _runnable(by_status: bool = True) -> Select[str]:
    """Return the query of the runnable candidates, in queue order.

    A job is runnable if it is queued, its delay is over, its teacher is trained and its compared runs have succeeded.
    `by_status=False` hides the status column from SQLite's planner, which would otherwise scan all queued jobs to find
    a few given ids.
    """
    teacher, run, status = aliased(Job), aliased(Job), _candidate.status
    unfinished = select(run.id).where(is_compared(run, _candidate), run.status != JobStatus.SUCCEEDED)
    return (
        select(_candidate.id)
        .where(
            (status if by_status else func.nullif(status, "", type_=status.type)) == JobStatus.QUEUED,
            or_(_candidate.not_before.is_(None), _candidate.not_before <= now()),
            or_(
                _candidate.teacher_job_id.is_(None),
                exists().where(teacher.id == _candidate.teacher_job_id, teacher.status == JobStatus.SUCCEEDED),
            ),
            ~exists(unfinished.correlate(_candidate)),
        )
        .order_by(_candidate.priority.desc(), _candidate.created_at, _candidate.id)
    )


def _fits_capacity(
    capacity: GpuCapacity, exclusions: ClaimExclusions, reserved_for: str | None, among: Collection[str] | None = None
) -> Select[str]:
    """Return the query of the runnable jobs that fit the free GPUs.

    If GPUs are reserved for a job, only jobs before it in the queue and jobs without GPUs remain.
    """
    candidates = _runnable() if among is None else _runnable(by_status=False).where(_candidate.id.in_(among))
    query = candidates.where(capacity.gpus_needed(_candidate) <= capacity.free, *exclusions.conditions(_candidate))
    if reserved_for is None:
        return query
    is_before = exists().where(_other.id == reserved_for, precedes(_candidate, _other))
    return query.where(or_(capacity.gpus_needed(_candidate) == 0, is_before))


def _reserved_for(session: Session, capacity: GpuCapacity, exclusions: ClaimExclusions) -> str | None:
    """Return the first job that fits the worker's GPUs but not the free ones, and has waited `RESERVATION_SECONDS`."""
    if capacity.free == capacity.gpus:
        return None
    is_waiting = (capacity.gpus_needed(_candidate) > capacity.free, capacity.gpus_needed(_candidate) <= capacity.gpus)
    long_ago = _candidate.created_at < now() - RESERVATION_SECONDS
    query = _runnable().where(*is_waiting, long_ago, *exclusions.conditions(_candidate))
    return session.scalars(query.limit(1)).first()
