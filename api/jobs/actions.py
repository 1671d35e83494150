"""Endpoints that change a submitted job; `store.states.ALLOWED` lists the actions allowed in each state.

An action applies to the given job only. `delete`, like `cancel`, also applies to its baselines, seed variants and
comparison; `resume` and `retry` also to what was cancelled with the job.
"""

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from api import disk_quota
from api.context import Context, ContextDep
from api.http.auth import Caller, Submitter
from api.http.schemas import JobId
from api.jobs import quota, service
from api.jobs.schemas import Job
from frs.names import Name
from frs.spec import Priority, Tags
from frs.spec_model import Spec
from store.artifacts import storage
from store.db import tables
from store.db.audit import Actor
from store.jobs import actions

router = APIRouter(prefix="/jobs", tags=["jobs"])


class JobChange(Spec):
    """Fields to change; omitted fields keep their value. The `spec` of the job always stays as submitted."""

    name: Name | None = None
    """New name; null removes the name."""
    tags: Tags = ()
    """New tags; they replace all earlier tags."""
    priority: Priority = 0
    """New priority. Workers take queued jobs of a higher priority first; above 0 needs a key with scope `priority`."""


ArtifactHandling = Annotated[
    Literal["delete", "keep"],
    Query(
        description="Whether to delete the checkpoints and other files of the job. The weights of a published detector "
        "are kept in any case."
    ),
]


@router.post("/{job_id}/stop", status_code=202)
def stop(context: ContextDep, caller: Submitter, job_id: JobId) -> Job:
    """Stop a running job early and keep its result.

    The job stops at its next training step, is evaluated, and succeeds with the end reason `stopped_early`. Its
    baselines and seed variants continue; the report marks pairs of runs with different numbers of steps.
    """
    return _act(context, caller, job_id, actions.stop)


@router.post("/{job_id}/pause", status_code=202)
def pause(context: ContextDep, caller: Submitter, job_id: JobId) -> Job:
    """Pause a queued or running job.

    A queued job leaves the queue immediately. A running job writes a checkpoint and frees its slot on the worker. Its
    baselines and seed variants continue; its comparison, and jobs that use its student as teacher, wait.
    """
    return _act(context, caller, job_id, actions.pause)


@router.post("/{job_id}/resume", status_code=202)
def resume(context: ContextDep, caller: Submitter, job_id: JobId) -> Job:
    """Return a job to the queue and continue from its last checkpoint, or from the beginning if there is none.

    Its baselines, seed variants and comparison that were cancelled with it, and jobs that failed only because this job
    had not succeeded, return to the queue as well.
    """
    job = _act(context, caller, job_id, actions.resume, reactivates=True)
    context.wakeups.enqueue(job_id)
    return job


@router.post("/{job_id}/retry", status_code=202)
def retry(context: ContextDep, caller: Submitter, job_id: JobId) -> Job:
    """Return a job to the queue and start it from scratch.

    Its metrics, evaluations, checkpoints and other files are deleted. Its baselines, seed variants and comparison that
    were cancelled with it, and jobs that failed only because this job had not succeeded, return to the queue as well
    and continue from their last checkpoint.
    """
    keys: list[str] = []

    def retry_and_collect_keys(session: Session, job_id: str, actor: Actor) -> None:
        keys.extend(actions.retry(session, job_id, actor)[1])

    job = _act(context, caller, job_id, retry_and_collect_keys, reactivates=True)
    context.wakeups.enqueue(job_id)
    # Delete after the commit: an unreferenced file is better than a row without its file.
    storage.delete_files(context.artifacts, *keys)
    return job


@router.patch("/{job_id}")
def change(context: ContextDep, caller: Submitter, job_id: JobId, change: JobChange) -> Job:
    """Change the name, tags or priority of a job in any state.

    A new priority applies from the next time a worker selects a job.
    """
    values = {name: getattr(change, name) for name in change.model_fields_set}
    if "tags" in values:
        values["tags"] = list(change.tags)

    def set_fields(session: Session, job_id: str, actor: Actor) -> None:
        service.check_priority(caller, change.priority)
        if values:
            actions.change(session, job_id, actor, **values)

    return _act(context, caller, job_id, set_fields)


@router.delete("/{job_id}", status_code=204)
def delete(context: ContextDep, caller: Submitter, job_id: JobId, artifacts: ArtifactHandling = "delete") -> None:
    """Delete a job that has ended, with its baselines, seed variants, comparison and all their files.

    Fails with status 409 while one of these jobs has not ended, or while another job needs its student. With
    `artifacts=keep` the files stay in the artifact store, but the service no longer lists them.
    """
    with context.database.write() as session:
        service.get_row(session, caller, job_id)
        keys = actions.delete(session, job_id, caller.actor)
        session.commit()
    if artifacts == "delete":
        storage.delete_files(context.artifacts, *keys)


def _act(
    context: Context,
    caller: Caller,
    job_id: str,
    action: Callable[[Session, str, Actor], tables.Job | None],
    *,
    reactivates: bool = False,
) -> Job:
    """Apply an action to a job and return the job.

    With `reactivates`, a job that had ended counts against its owner's quotas. Raises JobNotFound, ActionNotAllowed,
    and ApiError 403 or 429 if a quota is exceeded.
    """
    if reactivates:
        with context.database.read() as session:
            owner = quota.limited_owner(session, caller, service.get_row(session, caller, job_id))
            disk_quota.check(session, context.settings, owner)
    with context.database.write() as session:
        job = service.get_row(session, caller, job_id)
        had_ended = job.status.is_terminal
        action(session, job_id, caller.actor)
        if reactivates and had_ended:
            quota.check(session, context.settings, quota.limited_owner(session, caller, job), 0)
        session.commit()
    return service.get_job(context.database, caller, job_id)
