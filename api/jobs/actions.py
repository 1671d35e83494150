"""What is done to a job after it was posted. `store.states.ALLOWED` says what is allowed when.

Each concerns the job alone, not the jobs it brought along: only `cancel` and `delete` take these with it.
"""

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from api.context import Context, ContextDep
from api.http import files
from api.http.auth import Caller, Submitter
from api.http.schemas import JobId
from api.jobs import quota, service
from api.jobs.schemas import Job
from frs.spec import Name, Priority, Spec, Tags
from store.db import tables
from store.jobs import actions

router = APIRouter(prefix="/jobs", tags=["jobs"])


class JobChange(Spec):
    """Fields that are left out stay as they are. The spec keeps what was posted."""

    name: Name | None = None
    tags: Tags = ()
    priority: Priority = 0


Fate = Annotated[
    Literal["delete", "keep"],
    Query(description="Of its checkpoints and other files. A published detector's weights stay in any case."),
]


@router.post("/{job_id}/stop", status_code=202)
def stop(here: ContextDep, caller: Submitter, job_id: JobId) -> Job:
    """A running job ends at its next step, is evaluated and keeps what it has learned: it succeeds as `stopped_early`.

    Its baselines and siblings go on; a pair of runs that did not take as many steps is told in the report.
    """
    return _act(here, caller, job_id, actions.stop)


@router.post("/{job_id}/pause", status_code=202)
def pause(here: ContextDep, caller: Submitter, job_id: JobId) -> Job:
    """A waiting job leaves the queue at once; a running one writes a checkpoint and gives its slot back.

    Its baselines and siblings go on; its comparison, and jobs that need its student, wait.
    """
    return _act(here, caller, job_id, actions.pause)


@router.post("/{job_id}/resume", status_code=202)
def resume(here: ContextDep, caller: Submitter, job_id: JobId) -> Job:
    """Back to the queue, to go on from the last checkpoint; from the beginning where there is none.

    With it all jobs that failed only for want of it.
    """
    job = _act(here, caller, job_id, actions.resume, begins=True)
    here.wakeups.enqueue(job_id)
    return job


@router.post("/{job_id}/retry", status_code=202)
def retry(here: ContextDep, caller: Submitter, job_id: JobId) -> Job:
    """Back to the queue, to begin from scratch: its metrics, evaluations, checkpoints and other files are deleted.

    With it all jobs that failed only for want of it, which go on where they were.
    """
    keys: list[str] = []

    def again(session: Session, job_id: str) -> None:
        keys.extend(actions.retry(session, job_id)[1])

    job = _act(here, caller, job_id, again, begins=True)
    here.wakeups.enqueue(job_id)
    files.delete_files(here.artifacts, *keys)  # after the commit: a file too many is better than a row without its file
    return job


@router.patch("/{job_id}")
def change(here: ContextDep, caller: Submitter, job_id: JobId, change: JobChange) -> Job:
    """Name, tags and priority, in any state. A new priority counts from the next time that a worker looks."""
    values = {name: getattr(change, name) for name in change.model_fields_set}
    if "tags" in values:
        values["tags"] = list(change.tags)

    def set_fields(session: Session, job_id: str) -> None:
        if values:
            actions.change(session, job_id, **values)

    return _act(here, caller, job_id, set_fields)


@router.delete("/{job_id}", status_code=204)
def delete(here: ContextDep, caller: Submitter, job_id: JobId, artifacts: Fate = "delete") -> None:
    """Forgets a job that has ended, with its baselines, siblings and comparison, and deletes their files.

    Refused, 409, while one of them has not ended or another job needs its student. With `artifacts=keep` the files
    stay in the folder of artifacts, where the service knows them no more.
    """
    with here.database.write() as session:
        service.row(session, caller, job_id)
        keys = actions.delete(session, job_id)
        session.commit()
    if artifacts == "delete":
        files.delete_files(here.artifacts, *keys)


def _act(
    context: Context,
    caller: Caller,
    job_id: str,
    action: Callable[[Session, str], tables.Job | None],
    *,
    begins: bool = False,
) -> Job:
    """`begins`: a job that had ended counts as one that has not. Raises JobNotFound, ActionNotAllowed, Refusal 429."""
    with context.database.write() as session:
        had_ended = service.row(session, caller, job_id).status.is_terminal
        action(session, job_id)
        if begins and had_ended:
            quota.check(session, context.settings, caller, 0)
        session.commit()
    return service.find(context.database, caller, job_id)
