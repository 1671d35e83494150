"""The jobs of a sweep that have not ended: pause, continue and cancel them. The caller has locked the sweep."""

from collections.abc import Collection, Sequence
from contextlib import suppress

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from store.db.audit import Actor
from store.db.sweep_tables import Sweep, Trial
from store.db.tables import Job
from store.errors import ActionNotAllowed
from store.jobs import actions
from store.jobs.lease import lock_jobs
from store.states import TERMINAL, JobStatus


def pause(session: Session, sweep: Sweep, actor: Actor | None) -> None:
    """Pause the jobs that have not ended; a running one saves a checkpoint first."""
    for job in _unfinished(session, sweep):
        with suppress(ActionNotAllowed):  # it has ended meanwhile, or is paused already
            actions.pause(session, job.id, actor)


def unpause(session: Session, sweep: Sweep, actor: Actor) -> list[str]:
    """Continue the paused jobs, and withdraw the pause of those that are still running; return the paused ones' ids."""
    ids = [job.id for job in _unfinished(session, sweep)]
    is_pausing = (Job.id.in_(ids), Job.status == JobStatus.RUNNING, Job.pause_requested_at.is_not(None))
    lock_jobs(session, *is_pausing, pause_requested_at=None)
    paused = [job.id for job in lock_jobs(session, Job.id.in_(ids), Job.status == JobStatus.PAUSED)]
    for job_id in paused:
        actions.resume(session, job_id, actor)
    return paused


def cancel(session: Session, sweep: Sweep, actor: Actor, statuses: Collection[JobStatus]) -> None:
    """Cancel the jobs in one of these statuses."""
    for job in _unfinished(session, sweep):
        if job.status in statuses:
            with suppress(ActionNotAllowed):  # it has ended meanwhile
                actions.cancel(session, job.id, actor)


def _unfinished(session: Session, sweep: Sweep) -> Sequence[Job]:
    """Return the jobs of the trials and of the confirming run group that have not ended."""
    of_trials = select(Trial.job_id).where(Trial.sweep_id == sweep.id, Trial.job_id.is_not(None))
    confirming = (Job.id == sweep.confirm_job_id, Job.parent_id == sweep.confirm_job_id)
    members = or_(Job.id.in_(of_trials), *(confirming if sweep.confirm_job_id else ()))
    query = select(Job).where(members, Job.status.not_in(TERMINAL)).order_by(Job.id)
    return session.scalars(query, execution_options={"populate_existing": True}).all()
