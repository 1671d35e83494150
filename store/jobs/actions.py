"""What an owner may ask of a job, as the one table in `store.states` allows it; see there for what is asked when.

Like `store.jobs.lifecycle`: each begins with one guarded UPDATE and leaves the commit to its caller. Each raises JobNotFound, or
ActionNotAllowed with what is allowed instead. What has been asked already may be asked again.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete as delete_from
from sqlalchemy import exists, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from store.db.database import now
from store.db.queries import is_compared
from store.db.tables import Artifact, Checkpoint, Detector, Evaluation, Job, Metric
from store.errors import ActionNotAllowed, JobInUse, JobNotFound
from store.jobs.lease import update_returning
from store.jobs.transitions import add_event, end_job, move_to
from store.states import ALLOWED, Action, EndReason, JobStatus, allowed_actions


def cancel(session: Session, job_id: str) -> Job:
    """Ends a waiting or paused job at once; asks the worker of a running one to end it."""
    job = _request_action(session, job_id, Action.CANCEL, Job.cancel_requested_at)
    if job.status not in (JobStatus.RUNNING, JobStatus.CANCELLED):
        end_job(session, job, JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER)
    return job


def stop(session: Session, job_id: str) -> Job:
    """Asks the worker to end it at the next step, keep and evaluate what it has learned."""
    return _request_action(session, job_id, Action.STOP, Job.stop_requested_at)


def pause(session: Session, job_id: str) -> Job:
    """Takes a waiting job out of the queue at once; asks the worker of a running one for a checkpoint and its slot."""
    job = _request_action(session, job_id, Action.PAUSE, Job.pause_requested_at)
    if job.status == JobStatus.QUEUED:
        move_to(session, job, JobStatus.PAUSED)
    return job


def resume(session: Session, job_id: str) -> Job:
    """Back to the queue, to go on from the newest checkpoint; attempts that died before no longer count.

    With it, all that failed only for want of it.
    """
    job = _lock_for_action(session, job_id, Action.RESUME, failures_reset_at_attempt=Job.attempt)
    move_to(session, job, JobStatus.QUEUED)
    _revive_dependents(session, job)
    return job


def retry(session: Session, job_id: str) -> tuple[Job, list[str]]:
    """As `resume`, but to begin from scratch. Returns with it the keys of its files, to delete after the commit."""
    job = _lock_for_action(
        session, job_id, Action.RETRY, failures_reset_at_attempt=Job.attempt, started_at=None, progress=None, facts={}
    )
    keys = _files(session, [job.id])
    for table in (Checkpoint, Artifact, Metric, Evaluation):
        session.execute(delete_from(table).where(table.job_id == job.id))
    move_to(session, job, JobStatus.QUEUED)
    _revive_dependents(session, job)
    return job, keys


def change(session: Session, job_id: str, **values: Any) -> Job:
    """Sets `name`, `tags` or `priority`, in any state."""
    changed = update_returning(session, Job.id == job_id, **values)
    if not changed:
        raise JobNotFound(f"No job {job_id}.")
    [job] = changed
    add_event(session, job, "changed", values)
    return job


def delete(session: Session, job_id: str) -> list[str]:
    """Forgets the job and the jobs it brought along. Returns the keys of their files that no detector uses.

    Raises JobInUse where one of them has not ended, or another job still needs its student or compares it.
    """
    job = _lock_for_action(session, job_id, Action.DELETE, events=0)
    run_group = [job, *update_returning(session, Job.parent_id == job.id, events=0)]
    _check_not_in_use(session, run_group)
    ids = [member.id for member in run_group]
    keys = _files(session, ids)
    session.execute(update(Job).where(Job.teacher_job_id.in_(ids)).values(teacher_job_id=None))
    session.execute(delete_from(Job).where(Job.id.in_(ids)))
    session.expire_all()
    return keys


def _request_action(session: Session, job_id: str, action: Action, column: InstrumentedAttribute[float | None]) -> Job:
    """The job with that request noted; one that it was asked of before, as it is."""
    can_be = (Job.id == job_id, Job.status.in_(ALLOWED[action]), column.is_(None))
    asked: dict[str, Any] = {column.key: now()}
    while True:
        for job in update_returning(session, *can_be, **asked):
            if job.status == JobStatus.RUNNING:
                add_event(session, job, f"{action}_requested", {})
            return job
        job = _current_job(session, job_id, action)
        if getattr(job, column.key) is not None:
            return job


def _lock_for_action(session: Session, job_id: str, action: Action, *, events: int = 1, **values: Any) -> Job:
    while True:
        for job in update_returning(
            session, Job.id == job_id, Job.status.in_(ALLOWED[action]), events=events, **values
        ):
            return job
        _current_job(session, job_id, action)


def _current_job(session: Session, job_id: str, action: Action) -> Job:
    """The job that could not be locked. One that takes the action has changed since: it is to be tried again."""
    job = _existing(session, job_id)
    if job.status not in ALLOWED[action]:
        raise ActionNotAllowed(action, job.status, allowed_actions(job.status))
    return job


def _revive_dependents(session: Session, job: Job) -> None:
    wanted = aliased(Job)
    compares = exists(select(wanted.id).where(wanted.id == job.id, is_compared(wanted, Job)).correlate(Job))
    orphaned = (Job.status == JobStatus.FAILED, Job.end_reason == EndReason.DEPENDENCY_FAILED)
    for dependent in update_returning(session, *orphaned, or_(Job.teacher_job_id == job.id, compares)):
        move_to(session, dependent, JobStatus.QUEUED)
        _revive_dependents(session, dependent)


def _existing(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id, populate_existing=True)
    if job is None:
        raise JobNotFound(f"No job {job_id}.")
    return job


def _check_not_in_use(session: Session, run_group: Sequence[Job]) -> None:
    for member in run_group:
        if not member.status.is_terminal:
            raise JobInUse(
                f"Job {member.id}, which it brought along, is {member.status}.", "Cancel it, or wait for it."
            )
    ids = [member.id for member in run_group]
    run = aliased(Job)
    compares = exists(select(run.id).where(run.id.in_(ids), is_compared(run, Job)).correlate(Job))
    needs = or_(Job.teacher_job_id.in_(ids), compares)
    active = (Job.id.not_in(ids), Job.status.not_in(ALLOWED[Action.DELETE]))
    waiting = session.scalar(select(Job.id).where(needs, *active).limit(1))
    if waiting:
        raise JobInUse(f"Job {waiting} still needs its results.", "Cancel that job, or wait for it.")


def _files(session: Session, job_ids: Sequence[str]) -> list[str]:
    keys: list[str] = []
    for table in (Checkpoint, Artifact):
        used = exists().where(Detector.weights_key == table.key)
        keys += session.scalars(select(table.key).where(table.job_id.in_(job_ids), ~used))
    return keys
