"""User actions on a job. `store.states.ALLOWED` lists the statuses in which each action is allowed.

As in `store.jobs.lifecycle`, each action begins with one guarded UPDATE and leaves the commit to its caller. Each
raises JobNotFound, or ActionNotAllowed with the actions that are allowed. Repeating an accepted request has no effect.
An action with an `actor` records it in the audit trail and in the job's event.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import delete as delete_from
from sqlalchemy import exists, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from store.db import audit, queries
from store.db.audit import Actor
from store.db.database import now
from store.db.tables import Artifact, Checkpoint, Detector, Evaluation, Job, Metric
from store.errors import ActionNotAllowed, JobInUse, JobNotFound
from store.jobs.lease import lock_jobs
from store.jobs.transitions import add_event, by, end_job, move_to
from store.states import ALLOWED, Action, EndReason, JobStatus, allowed_actions


def cancel_group(session: Session, job_id: str, actor: Actor | None = None) -> Job:
    """Cancel the job and those of its children that have not ended, and return the job.

    All of them get the same time of the request, by which `resume` and `retry` recognise what was cancelled together.
    """
    job = cancel(session, job_id, actor)
    for child in queries.children(session, job_id):
        with suppress(ActionNotAllowed):  # the child has ended
            cancel(session, child.id, actor, at=job.cancel_requested_at)
    return job


def cancel(session: Session, job_id: str, actor: Actor | None = None, at: float | None = None) -> Job:
    """Cancel a queued or paused job immediately; request it from the worker of a running one.

    `at` is the time of the request; None: now.
    """
    job = _request_action(session, job_id, Action.CANCEL, Job.cancel_requested_at, actor, at)
    if job.status not in (JobStatus.RUNNING, JobStatus.CANCELLED):
        end_job(session, job, JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER, actor=actor)
    return job


def stop(session: Session, job_id: str, actor: Actor | None = None) -> Job:
    """Request the worker to end training at the next step and to keep and evaluate the weights."""
    return _request_action(session, job_id, Action.STOP, Job.stop_requested_at, actor)


def pause(session: Session, job_id: str, actor: Actor | None = None) -> Job:
    """Pause a queued job immediately; request a running one to save a checkpoint and release its slot."""
    job = _request_action(session, job_id, Action.PAUSE, Job.pause_requested_at, actor)
    if job.status == JobStatus.QUEUED:
        move_to(session, job, JobStatus.PAUSED, actor)
    return job


def resume(session: Session, job_id: str, actor: Actor | None = None) -> Job:
    """Queue the job again, to continue from its newest checkpoint; earlier failed attempts no longer count.

    Members of its run group that were cancelled with it, and jobs that failed only because this one had failed, are
    queued again as well.
    """
    job = _lock_for_action(session, job_id, Action.RESUME, failures_reset_at_attempt=Job.attempt)
    others = _queue_again(session, job, actor)
    audit.record(session, actor, "job.resume", [job.id, *others])
    return job


def retry(session: Session, job_id: str, actor: Actor | None = None) -> tuple[Job, list[str]]:
    """Queue the job again, to start from scratch; otherwise like `resume`.

    Returns the job and the artifact keys of its files, which the caller deletes after the commit.
    """
    job = _lock_for_action(
        session, job_id, Action.RETRY, failures_reset_at_attempt=Job.attempt, started_at=None, progress=None, facts={}
    )
    keys = _file_keys(session, [job.id])
    for table in (Checkpoint, Artifact, Metric, Evaluation):
        session.execute(delete_from(table).where(table.job_id == job.id))
    others = _queue_again(session, job, actor)
    audit.record(session, actor, "job.retry", [job.id])
    audit.record(session, actor, "job.resume", others)
    return job, keys


def change(session: Session, job_id: str, actor: Actor | None = None, **values: Any) -> Job:
    """Set `name`, `tags` or `priority`, in any status."""
    jobs = lock_jobs(session, Job.id == job_id, **values)
    if not jobs:
        raise JobNotFound(f"No job {job_id}.")
    [job] = jobs
    add_event(session, job, "changed", values | by(actor))
    audit.record(session, actor, "job.edit", [job.id], **values)
    return job


def delete(session: Session, job_id: str, actor: Actor | None = None) -> list[str]:
    """Delete the job and its run group. Return the artifact keys of their files that no detector uses.

    Raises JobInUse if one of the run group has not ended, or if another job needs the student of one or compares it.
    """
    job = _lock_for_action(session, job_id, Action.DELETE)
    run_group = [job, *lock_jobs(session, Job.parent_id == job.id)]
    _check_not_in_use(session, run_group)
    ids = [member.id for member in run_group]
    keys = _file_keys(session, ids)
    session.execute(update(Job).where(Job.teacher_job_id.in_(ids)).values(teacher_job_id=None))
    session.execute(delete_from(Job).where(Job.id.in_(ids)))
    session.expire_all()
    audit.record(session, actor, "job.delete", ids)
    return keys


def _request_action(
    session: Session,
    job_id: str,
    action: Action,
    column: InstrumentedAttribute[float | None],
    actor: Actor | None,
    at: float | None = None,
) -> Job:
    """Record the time of the request in `column` and return the job; a job with that request is returned unchanged."""
    is_new = (Job.id == job_id, Job.status.in_(ALLOWED[action]), column.is_(None))
    requested_at: dict[str, Any] = {column.key: now() if at is None else at}
    while True:
        for job in lock_jobs(session, *is_new, **requested_at):
            if job.status == JobStatus.RUNNING:
                add_event(session, job, f"{action}_requested", by(actor))
            audit.record(session, actor, f"job.{action}", [job.id])
            return job
        job = _current_job(session, job_id, action)
        if getattr(job, column.key) is not None:
            return job


def _lock_for_action(session: Session, job_id: str, action: Action, **values: Any) -> Job:
    """Lock the job in a status that allows the action, update it and return it."""
    while True:
        for job in lock_jobs(session, Job.id == job_id, Job.status.in_(ALLOWED[action]), **values):
            return job
        _current_job(session, job_id, action)


def _current_job(session: Session, job_id: str, action: Action) -> Job:
    """Return the job that could not be locked, if its status allows the action by now: the caller tries again.

    Raises ActionNotAllowed otherwise.
    """
    job = _read_job(session, job_id)
    if job.status not in ALLOWED[action]:
        raise ActionNotAllowed(action, job.status, allowed_actions(job.status))
    return job


def _queue_again(session: Session, job: Job, actor: Actor | None) -> list[str]:
    """Queue the job again, with those that were cancelled with it or failed because of it, and recursively theirs.

    Returns the ids of the others.
    """
    cancelled_at = job.cancel_requested_at
    move_to(session, job, JobStatus.QUEUED, actor)
    members = [] if cancelled_at is None else _revive_members(session, job, cancelled_at, actor)
    return members + _revive_dependents(session, job, actor)


def _revive_members(session: Session, job: Job, cancelled_at: float, actor: Actor | None) -> list[str]:
    """Queue the job's children again that were cancelled with it; withdraw the cancel of those that still run.

    Returns their ids, and those of the jobs that are queued again because of them.
    """
    cancelled_with_job = (Job.parent_id == job.id, Job.cancel_requested_at == cancelled_at)
    running = lock_jobs(session, *cancelled_with_job, Job.status == JobStatus.RUNNING, cancel_requested_at=None)
    ids = [member.id for member in running]
    is_cancelled = (*cancelled_with_job, Job.status == JobStatus.CANCELLED)
    for member in lock_jobs(session, *is_cancelled, failures_reset_at_attempt=Job.attempt):
        ids += [member.id, *_queue_again(session, member, actor)]
    return ids


def _revive_dependents(session: Session, job: Job, actor: Actor | None) -> list[str]:
    run = aliased(Job)
    compares = exists(select(run.id).where(run.id == job.id, queries.is_compared(run, Job)).correlate(Job))
    has_failed = (Job.status == JobStatus.FAILED, Job.end_reason == EndReason.DEPENDENCY_FAILED)
    depends_on_job = or_(Job.teacher_job_id == job.id, Job.parent_id == job.id, compares)
    ids: list[str] = []
    for dependent in lock_jobs(session, *has_failed, depends_on_job):
        ids += [dependent.id, *_queue_again(session, dependent, actor)]
    return ids


def _read_job(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id, populate_existing=True)
    if job is None:
        raise JobNotFound(f"No job {job_id}.")
    return job


def _check_not_in_use(session: Session, run_group: Sequence[Job]) -> None:
    for member in run_group:
        if not member.status.is_terminal:
            raise JobInUse(f"Job {member.title} of its run group is {member.status}.", "Cancel it, or wait for it.")
    ids = [member.id for member in run_group]
    run = aliased(Job)
    compares = exists(select(run.id).where(run.id.in_(ids), queries.is_compared(run, Job)).correlate(Job))
    is_dependent = or_(queries.uses_student_of(ids), compares)
    active = (Job.id.not_in(ids), Job.status.not_in(ALLOWED[Action.DELETE]))
    dependent = session.scalar(select(Job).where(is_dependent, *active).limit(1))
    if dependent:
        raise JobInUse(f"Job {dependent.title} still needs its results.", "Cancel that job, or wait for it.")


def _file_keys(session: Session, job_ids: Sequence[str]) -> list[str]:
    """Return the artifact keys of the jobs' files that no detector uses."""
    keys: list[str] = []
    for table in (Checkpoint, Artifact):
        used = exists().where(Detector.weights_key == table.key)
        keys += session.scalars(select(table.key).where(table.job_id.in_(job_ids), ~used))
    return keys
