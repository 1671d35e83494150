"""The line before the workers: which job is next, for whom there is room, and who must not be overtaken for ever."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, exists, func, or_, select, true, tuple_
from sqlalchemy.orm import Session, aliased

from store.database import now
from store.queries import is_compared
from store.states import JobStatus
from store.tables import Job

OVERTAKING_SECONDS = 600.0
"""So long smaller jobs may overtake one that fits a worker but not the GPUs it has free; then these are kept for it."""


@dataclass(frozen=True)
class Room:
    """GPUs of a worker. A job that asks for none in particular takes one where there is one."""

    gpus: int
    free: int

    def needs(self, job: type[Job]) -> ColumnElement[int]:
        return func.coalesce(job.devices, min(1, self.gpus))


CPU_ONLY = Room(gpus=0, free=0)


def next_in_the_queue(session: Session, room: Room, job_id: str | None = None) -> ScalarSelect[str]:
    """Id of the first that can run in this room, its row locked; only that one, if it can, where `job_id` names it."""
    candidate = aliased(Job)
    harmless = or_(room.needs(candidate) == 0, _before_the_overtaken(session, room, candidate))
    query = (
        _runnable(candidate)
        .where(room.needs(candidate) <= room.free, harmless)
        .with_for_update(skip_locked=True, of=candidate)
    )
    return (query.where(candidate.id == job_id) if job_id else query).scalar_subquery()


def comes_before(one: type[Job], other: type[Job]) -> ColumnElement[bool]:
    """By priority, then age."""
    older = tuple_(one.created_at, one.id) < tuple_(other.created_at, other.id)
    return or_(one.priority > other.priority, and_(one.priority == other.priority, older))


def _runnable(candidate: type[Job]) -> Select[str]:
    """The first of those whose time has come and whose teacher and runs are there."""
    teacher, run = aliased(Job), aliased(Job)
    unfinished = select(run.id).where(is_compared(run, candidate), run.status != JobStatus.SUCCEEDED)
    return (
        select(candidate.id)
        .where(
            candidate.status == JobStatus.QUEUED,
            or_(candidate.not_before.is_(None), candidate.not_before <= now()),
            or_(
                candidate.teacher_job_id.is_(None),
                exists().where(teacher.id == candidate.teacher_job_id, teacher.status == JobStatus.SUCCEEDED),
            ),
            ~exists(unfinished.correlate(candidate)),
        )
        .order_by(candidate.priority.desc(), candidate.created_at, candidate.id)
        .limit(1)
    )


def _before_the_overtaken(session: Session, room: Room, candidate: type[Job]) -> ColumnElement[bool]:
    """Nobody overtakes a job that fits this worker's GPUs and has waited long for them to be free together."""
    if room.free == room.gpus:
        return true()
    large = aliased(Job)
    waits = (room.needs(large) > room.free, room.needs(large) <= room.gpus)
    long_ago = large.created_at < now() - OVERTAKING_SECONDS
    overtaken = session.scalars(_runnable(large).where(*waits, long_ago)).first()
    if overtaken is None:
        return true()
    other = aliased(Job)
    return exists().where(other.id == overtaken, comes_before(candidate, other))
