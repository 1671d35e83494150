"""The line before the workers: which job is next, for whom there is capacity, and who must not be overtaken for ever."""

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
"""So long smaller jobs may overtake one that fits a worker but not the GPUs it has free; then these are kept for it."""


@dataclass(frozen=True)
class GpuCapacity:
    """GPUs of a worker. A job that asks for none in particular takes one where there is one."""

    gpus: int
    free: int

    def needs(self, job: type[Job]) -> ColumnElement[int]:
        return func.coalesce(job.devices, min(1, self.gpus))


CPU_ONLY = GpuCapacity(gpus=0, free=0)


@dataclass(frozen=True)
class ClaimExclusions:
    """Jobs that a worker leaves to others, for it lacks what they need."""

    jobs: frozenset[str] = frozenset()
    datasets: frozenset[str] = frozenset()
    """All that train on these."""

    def spares(self, job: type[Job]) -> list[ColumnElement[bool]]:
        """What is true of the others; nothing where nothing is left to others."""
        by_column = ((job.id, self.jobs), (job.dataset_id, self.datasets))
        return [column.not_in(sorted(ids)) for column, ids in by_column if ids]


@dataclass(frozen=True)
class QueueHead:
    next: Sequence[str]
    """Ids of the first jobs that can run, in line."""
    overtaken: str | None
    """The job that GPUs are kept for."""


NO_EXCLUSIONS = ClaimExclusions()
_candidate, _other = aliased(Job), aliased(Job)
"""Made once, as `_runnable` is: to make the columns of an alias takes longer than SQLite takes to find the job."""


def peek(session: Session, capacity: GpuCapacity, exclusions: ClaimExclusions, limit: int) -> QueueHead:
    """What `lock_next` chooses from, without locking anything."""
    overtaken = _reserved_for(session, capacity, exclusions)
    return QueueHead(session.scalars(_fits_capacity(capacity, exclusions, overtaken).limit(limit)).all(), overtaken)


def lock_next(
    session: Session,
    capacity: GpuCapacity,
    among: Collection[str] | None = None,
    exclusions: ClaimExclusions = NO_EXCLUSIONS,
) -> ScalarSelect[str]:
    """Id of the first that can run in this capacity, its row locked; of those, where `among` names some."""
    query = _fits_capacity(capacity, exclusions, _reserved_for(session, capacity, exclusions), among)
    return query.with_for_update(skip_locked=True, of=_candidate).limit(1).scalar_subquery()


def precedes(one: type[Job], other: type[Job]) -> ColumnElement[bool]:
    """By priority, then age."""
    older = tuple_(one.created_at, one.id) < tuple_(other.created_at, other.id)
    return or_(one.priority > other.priority, and_(one.priority == other.priority, older))


def positions(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """Places in the line, 1 is next, of those of the jobs that are queued.

    However many they are, one pass over the index: each counts only what stands between it and the one before it.
    """
    asked = session.execute(select(Job.id, Job.status).where(Job.id.in_(job_ids)))
    queued = [id for id, status in asked if status == JobStatus.QUEUED]  # in SQL, SQLite would walk the whole queue
    by_priority = queue_lengths(session) if queued else {}
    places: dict[str, int] = {}
    for priority, group in groupby(_rows_with_gaps(session, queued), itemgetter(1)):
        rows = list(group)
        ahead = sum(length for other, length in by_priority.items() if other > priority)
        so_far = accumulate(older for _, _, older, _ in rows)
        places |= {id: ahead + older + twins + 1 for (id, _, _, twins), older in zip(rows, so_far, strict=True)}
    return places


def in_order(
    session: Session, *conditions: ColumnElement[bool], limit: int, after: tuple[int, float, str] | None = None
) -> list[Job]:
    """The first queued jobs that meet the conditions, behind that priority, time and id.

    Priority by priority, for the index is in no order that would serve all of them at once.
    """
    found: list[Job] = []
    for priority in queue_lengths(session):
        if len(found) == limit:
            break
        if after is not None and priority > after[0]:
            continue
        query = select(Job).where(Job.status == JobStatus.QUEUED, Job.priority == priority, *conditions)
        if after is not None and priority == after[0]:
            query = query.where(tuple_(Job.created_at, Job.id) > after[1:])
        found += session.scalars(query.order_by(Job.created_at, Job.id).limit(limit - len(found)))
    return found


def position_of_new_job(session: Session, priority: int) -> int:
    """Behind all that are as urgent."""
    as_urgent = (Job.status == JobStatus.QUEUED, Job.priority >= priority)
    return 1 + session.scalars(select(func.count()).where(*as_urgent).select_from(Job)).one()


def queue_lengths(session: Session) -> dict[int, int]:
    """Queued jobs by priority, the highest first."""
    query = select(Job.priority, func.count()).where(Job.status == JobStatus.QUEUED).group_by(Job.priority)
    rows = session.execute(query.order_by(Job.priority.desc())).all()
    return {row[0]: row[1] for row in rows}


def _rows_with_gaps(session: Session, queued: Sequence[str]) -> Sequence[Row[str, int, int, int]]:
    """In line: id, priority, how many of that priority are older but no older than the row before, how many as old."""
    in_line = (Job.created_at, Job.id)
    before = func.lag(Job.created_at).over(partition_by=Job.priority, order_by=in_line)
    wanted = (
        select(Job.id, Job.priority, Job.created_at, before.label("before")).where(Job.id.in_(queued)).cte("wanted")
    )
    mine, other = wanted.c, aliased(Job)
    alike = select(func.count()).where(other.status == JobStatus.QUEUED, other.priority == mine.priority)
    between = and_(other.created_at >= func.coalesce(mine.before, 0.0), other.created_at < mine.created_at)
    older = alike.where(between).correlate(wanted).scalar_subquery()
    twins = alike.where(other.created_at == mine.created_at, other.id < mine.id).correlate(wanted).scalar_subquery()
    query = select(mine.id, mine.priority, older, twins)
    return session.execute(query.order_by(mine.priority.desc(), mine.created_at, mine.id)).all()


@cache
def _runnable(by_status: bool = True) -> Select[str]:
    """The candidates whose time has come and whose teacher and runs are there, in line.

    Not `by_status`: by another condition, where SQLite would walk all that are queued to find a handful.
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
    capacity: GpuCapacity, exclusions: ClaimExclusions, overtaken: str | None, among: Collection[str] | None = None
) -> Select[str]:
    these = _runnable() if among is None else _runnable(by_status=False).where(_candidate.id.in_(among))
    query = these.where(capacity.needs(_candidate) <= capacity.free, *exclusions.spares(_candidate))
    if overtaken is None:
        return query
    before = exists().where(_other.id == overtaken, precedes(_candidate, _other))
    return query.where(or_(capacity.needs(_candidate) == 0, before))


def _reserved_for(session: Session, capacity: GpuCapacity, exclusions: ClaimExclusions) -> str | None:
    """The first that fits this worker's GPUs and has waited long for them to be free together: nobody overtakes it."""
    if capacity.free == capacity.gpus:
        return None
    waits = (capacity.needs(_candidate) > capacity.free, capacity.needs(_candidate) <= capacity.gpus)
    long_ago = _candidate.created_at < now() - RESERVATION_SECONDS
    return session.scalars(_runnable().where(*waits, long_ago, *exclusions.spares(_candidate)).limit(1)).first()
