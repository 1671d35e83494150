"""The job queue: its order, which jobs a worker can claim, and GPUs reserved for large jobs.

Within a priority, owners take turns: the owner served least recently is next, with its oldest job. The k-th queued job
of an owner is in round k; the queue is ordered by priority, round and the owner's turn. A job that cannot start yet is
skipped, and the owner's next job takes the turn. A smaller job may overtake a larger one that does not fit the free
GPUs, but not forever (`RESERVATION_SECONDS`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    ScalarSelect,
    Select,
    Subquery,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.orm import Session, aliased

from store.db.database import insert, now
from store.db.queries import is_compared
from store.db.tables import Job, Owner, WorkerRequest
from store.states import JobStatus

RESERVATION_SECONDS = 600.0
"""After 10 min in the queue, free GPUs are reserved for a job that fits this worker but not its free GPUs."""


@dataclass(frozen=True)
class GpuCapacity:
    """The GPUs of a worker, how many of them are free, how many a job must take, and on how many hosts."""

    gpus: int
    free: int
    at_least: int = 0
    """Jobs that take fewer GPUs are left to other workers."""
    nodes: int = 1
    """Number of hosts, with as many GPUs each; jobs of another number are left to other workers."""

    def gpus_needed(self, row: type[Job] | type[WorkerRequest]) -> ColumnElement[int]:
        """Return the number of GPUs the job takes on this worker: by default one if the worker has any."""
        return func.coalesce(row.devices, min(1, self.gpus))

    def fits(self, row: type[Job] | type[WorkerRequest]) -> ColumnElement[bool]:
        """Return the condition that the job takes free GPUs only, and at least `at_least`."""
        needed = self.gpus_needed(row)
        return and_(needed <= self.free, needed >= self.at_least) if self.at_least else needed <= self.free


CPU_ONLY = GpuCapacity(gpus=0, free=0)
"""The capacity of a worker without GPUs."""


@dataclass(frozen=True)
class ClaimExclusions:
    """Jobs, by id or data set, that a worker skips because it does not meet their requirements."""

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
    jobs = _in_rounds(_fits_capacity(capacity, exclusions, reserved_for))
    query = select(jobs.c.id).order_by(jobs.c.priority.desc(), *_place(jobs)).limit(limit)
    return QueueHead(session.scalars(query).all(), reserved_for)


def claimable(capacity: GpuCapacity) -> Select[str]:
    """Return the query of the ids of the jobs that an idle worker may claim, in no order."""
    return _fits_capacity(capacity, NO_EXCLUSIONS, None).with_only_columns(_candidate.id)


def lock_next(
    session: Session,
    capacity: GpuCapacity,
    among: Collection[str] | None = None,
    exclusions: ClaimExclusions = NO_EXCLUSIONS,
) -> ScalarSelect[str]:
    """Return a subquery for the id of the first job that fits the capacity; it locks the job's row.

    `among` restricts the choice to these ids. Workers that claim at the same time may take several jobs in one turn.
    """
    query = _fits_capacity(capacity, exclusions, _reserved_for(session, capacity, exclusions), among)
    return _first(query).with_for_update(skip_locked=True, of=_candidate).scalar_subquery()


def end_turn(session: Session, owner: str) -> None:
    """Record that a job of the owner was claimed: within each priority, all other owners are before it now.

    The caller has locked the job. The owner's row is always locked after a job's row.
    """
    row = insert(session, Owner).values(owner=owner, served_at=now())
    session.execute(row.on_conflict_do_update(index_elements=[Owner.owner], set_={"served_at": now()}))


def precedes(one: type[Job], other: type[Job]) -> ColumnElement[bool]:
    """Return the condition that `one` may take GPUs reserved for `other`: by priority, then by turn and age.

    Turn alone would admit new jobs of other owners whenever another worker claims a job of the reserved job's owner;
    age alone would admit all older jobs of an owner.
    """
    is_older = tuple_(one.created_at, one.id) < tuple_(other.created_at, other.id)
    is_in_turn = tuple_(_turn(one), one.owner) <= tuple_(_turn(other), other.owner)
    return or_(one.priority > other.priority, and_(one.priority == other.priority, is_older, is_in_turn))


def positions(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """Return the queue positions (1 is next) of the given jobs that are queued.

    The query makes two passes over the index for any number of jobs.
    """
    statuses = session.execute(_STATUSES, {"ids": list(job_ids)})
    queued = [id for id, status in statuses if status == JobStatus.QUEUED]  # in SQL, SQLite would scan the whole queue
    if not queued:
        return {}
    return {id: int(position) for id, position in session.execute(_POSITIONS, {"ids": queued})}


def jobs_in_order(
    session: Session, *conditions: ColumnElement[bool], limit: int, after: tuple[int, str] | None = None
) -> list[Job]:
    """Return the first `limit` queued jobs that meet the conditions, in queue order.

    `after` is the priority and id of the last job of the previous page. If that job has left the queue, the page starts
    at the first job of its priority: rounds have moved, and a job listed twice is better than a job left out.
    """
    jobs = _in_rounds(select(Job.id, Job.priority, Job.owner, Job.created_at).where(Job.status == JobStatus.QUEUED))
    query = select(Job).join(jobs, jobs.c.id == Job.id).where(*conditions)
    if after is not None:
        priority, last_id = after
        last = session.get(Job, last_id)
        is_after: ColumnElement[bool] = jobs.c.priority == priority
        if last is not None and (last.status, last.priority) == (JobStatus.QUEUED, priority):
            place = session.execute(_PLACES, {"ids": [last_id]}).one()
            is_after = and_(is_after, tuple_(*_place(jobs)) > tuple(place))
        query = query.where(or_(jobs.c.priority < priority, is_after))
    return list(session.scalars(query.order_by(jobs.c.priority.desc(), *_place(jobs)).limit(limit)))


def position_of_new_job(session: Session, priority: int, owner: str) -> int:
    """Return the position of a new job of the owner: in the round after its last queued job of the priority."""
    lengths = _lengths()
    own = select(lengths.c.length).where(lengths.c.priority == priority, lengths.c.owner == owner).scalar_subquery()
    turn = select(Owner.served_at).where(Owner.owner == owner).scalar_subquery()
    ahead = _number_ahead(
        lengths, literal(priority), 1 + func.coalesce(own, 0), func.coalesce(turn, 0.0), literal(owner)
    )
    return 1 + int(session.scalars(select(func.coalesce(func.sum(ahead), 0))).one())


def _turn(job: type[Job]) -> ColumnElement[float]:
    """Return when the job's owner was served last; 0 if never."""
    served_at = select(Owner.served_at).where(Owner.owner == job.owner).correlate(job)
    return func.coalesce(served_at.scalar_subquery(), 0.0)


def _in_rounds(jobs: Select[str, int, str, float]) -> Subquery:
    """Return the rounds of the jobs of a query among themselves: columns id, priority, owner, round and turn."""
    row = jobs.subquery().c
    round = func.row_number().over(partition_by=(row.priority, row.owner), order_by=(row.created_at, row.id))
    turn = func.coalesce(Owner.served_at, 0.0)
    columns = (row.id, row.priority, row.owner, round.label("round"), turn.label("turn"))
    return select(*columns).outerjoin(Owner, Owner.owner == row.owner).subquery()


def _place(jobs: FromClause) -> tuple[ColumnElement[Any], ...]:
    """Return the columns by which the jobs of a priority are sorted."""
    return jobs.c.round, jobs.c.turn, jobs.c.owner


def _lengths() -> CTE:
    """Return the number of queued jobs per priority and owner: columns priority, owner, length and turn."""
    queued = select(Job.priority, Job.owner, func.count().label("length")).where(Job.status == JobStatus.QUEUED)
    row = queued.group_by(Job.priority, Job.owner).subquery()
    query = select(*row.c, func.coalesce(Owner.served_at, 0.0).label("turn"))
    return query.outerjoin_from(row, Owner, Owner.owner == row.c.owner).cte("lengths")


def _number_ahead(
    lengths: CTE,
    priority: ColumnElement[int],
    round: ColumnElement[int],
    turn: ColumnElement[float],
    owner: ColumnElement[str],
) -> ColumnElement[int]:
    """Return how many of the jobs of a row of `_lengths` are ahead of the job with this place in the queue."""
    row = lengths.c
    is_before = tuple_(row.turn, row.owner) < tuple_(turn, owner)
    rounds = round - case((is_before, 0), else_=1)
    in_priority = case((row.length < rounds, row.length), else_=rounds)
    return case((row.priority > priority, row.length), (row.priority == priority, in_priority), else_=0)


def _rounds() -> CTE:
    """Return the rounds of the queued jobs of the parameter `ids`: columns id, priority, owner, round and turn.

    Each job counts only the jobs of its owner between the given job before it and itself; the sum is its round.
    """
    owners, ages = (Job.priority, Job.owner), (Job.created_at, Job.id)
    previous_at = func.coalesce(func.lag(Job.created_at).over(partition_by=owners, order_by=ages), 0.0).label(
        "previous_at"
    )
    previous_id = func.coalesce(func.lag(Job.id).over(partition_by=owners, order_by=ages), "").label("previous_id")
    columns = (Job.id, Job.priority, Job.owner, Job.created_at, _turn(Job).label("turn"))
    wanted = (
        select(*columns, previous_at, previous_id).where(Job.id.in_(bindparam("ids", expanding=True))).cte("wanted")
    )
    row, other = wanted.c, aliased(Job)
    is_between = (
        other.created_at.between(row.previous_at, row.created_at),  # a range of the index; the tuples also compare ids
        tuple_(other.created_at, other.id) > tuple_(row.previous_at, row.previous_id),
        tuple_(other.created_at, other.id) <= tuple_(row.created_at, row.id),
    )
    same_owner = (other.status == JobStatus.QUEUED, other.priority == row.priority, other.owner == row.owner)
    between = select(func.count()).where(*same_owner, *is_between).correlate(wanted).scalar_subquery()
    counted = select(row.id, row.priority, row.owner, row.turn, row.created_at, between.label("between")).cte("counted")
    row = counted.c
    so_far = func.sum(row.between).over(partition_by=(row.priority, row.owner), order_by=(row.created_at, row.id))
    return select(row.id, row.priority, row.owner, row.turn, so_far.label("round")).cte("rounds")


def _positions() -> Select[str, int]:
    """Return the query of the positions of the queued jobs of the parameter `ids`."""
    jobs, lengths = _rounds(), _lengths()
    ahead = func.sum(_number_ahead(lengths, jobs.c.priority, jobs.c.round, jobs.c.turn, jobs.c.owner))
    return select(jobs.c.id, 1 + ahead).join_from(jobs, lengths, literal(True)).group_by(jobs.c.id)


_STATUSES = select(Job.id, Job.status).where(Job.id.in_(bindparam("ids", expanding=True)))
_POSITIONS = _positions()
_PLACES = select(*_place(_rounds()))
"""Built once, because building these queries takes longer than running them."""


@cache
def _runnable(by_status: bool = True) -> Select[str, int, str, float]:
    """Return the query of the runnable candidates: columns id, priority, owner and created_at.

    A job is runnable if it is queued, its delay is over, its teacher is trained, its parent has not failed and its
    compared runs have succeeded.
    `by_status=False` hides the status column from SQLite's planner, which would otherwise scan all queued jobs to find
    a few given ids.
    """
    teacher, run, status = aliased(Job), aliased(Job), _candidate.status
    failed_parent = exists().where(
        run.id == _candidate.parent_id, run.status.in_([JobStatus.FAILED, JobStatus.CANCELLED])
    )
    unfinished = select(run.id).where(is_compared(run, _candidate), run.status != JobStatus.SUCCEEDED)
    return select(_candidate.id, _candidate.priority, _candidate.owner, _candidate.created_at).where(
        (status if by_status else func.nullif(status, "", type_=status.type)) == JobStatus.QUEUED,
        or_(_candidate.not_before.is_(None), _candidate.not_before <= now()),
        or_(
            _candidate.teacher_job_id.is_(None),
            exists().where(teacher.id == _candidate.teacher_job_id, teacher.status == JobStatus.SUCCEEDED),
        ),
        ~failed_parent.correlate(_candidate),
        ~exists(unfinished.correlate(_candidate)),
    )


def _first(candidates: Select[str, int, str, float]) -> Select[str]:
    """Return the query of the id of the first candidate: the oldest of the owner whose turn it is."""
    order = (_candidate.priority.desc(), _turn(_candidate), _candidate.owner, _candidate.created_at, _candidate.id)
    return candidates.with_only_columns(_candidate.id).order_by(*order).limit(1)


def _fits_capacity(
    capacity: GpuCapacity, exclusions: ClaimExclusions, reserved_for: str | None, among: Collection[str] | None = None
) -> Select[str, int, str, float]:
    """Return the query of the runnable jobs that fit the free GPUs.

    If GPUs are reserved for a job, only jobs that precede it and jobs without GPUs remain.
    """
    candidates = _runnable() if among is None else _runnable(by_status=False).where(_candidate.id.in_(among))
    is_of_size = _candidate.nodes == capacity.nodes
    query = candidates.where(is_of_size, capacity.fits(_candidate), *exclusions.conditions(_candidate))
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
    is_of_size = _candidate.nodes == capacity.nodes
    query = _runnable().where(is_of_size, *is_waiting, long_ago, *exclusions.conditions(_candidate))
    return session.scalars(_first(query)).first()
