"""The lifecycle of a job: queued, running under a lease, ended.

Every function takes a session of `Database.write` and leaves the commit to its caller, so that a transition, its event
and related changes are atomic. Every transition begins with one guarded UPDATE, see `store.jobs.lease`. The database
is authoritative; messages only wake workers.
"""

from collections.abc import Collection
from functools import cache
from typing import Literal

from sqlalchemy import Select, delete, exists, func, or_, select, union
from sqlalchemy.orm import Session, aliased

from frs.events import ErrorInfo
from frs.spec import JobSpec
from store.db import ids
from store.db.audit import Actor
from store.db.database import insert, now
from store.db.idempotency import Idempotency, columns, find_repeated
from store.db.queries import COMPARE, is_compared
from store.db.tables import DEFAULT_OWNER, Attempt, Checkpoint, Event, Job
from store.errors import AlreadySubmitted
from store.jobs.lease import Lease, Renewal, lock_attempt, lock_jobs, requested_action
from store.jobs.transitions import add_status_event, by, end_attempt, end_job, insert_event, return_to_queue
from store.scheduling.queue import CPU_ONLY, NO_EXCLUSIONS, ClaimExclusions, GpuCapacity, end_turn, lock_next
from store.states import AttemptEnd, EndReason, JobStatus, WaitingReason


def add(
    session: Session,
    spec: JobSpec,
    *,
    dataset_id: str,
    owner: str = DEFAULT_OWNER,
    parent_id: str | None = None,
    teacher_job_id: str | None = None,
    key_id: str | None = None,
    idempotency: Idempotency | None = None,
    actor: Actor | None = None,
) -> Job:
    """Add a job to the queue and return it; the caller has checked its references and records the audit entry.

    Raises AlreadySubmitted if the owner has sent the same request with this idempotency key before, and
    IdempotencyKeyReused if that request was a different one.
    """
    values = {
        "id": ids.new_id("job"),
        "name": spec.name,
        "kind": spec.kind,
        "spec": spec.model_dump(mode="json"),
        "owner": owner,
        "tags": list(spec.tags),
        "devices": 0 if spec.kind == COMPARE else spec.resources.devices,
        "nodes": 1 if spec.kind == COMPARE else spec.resources.nodes,
        "priority": spec.priority,
        "dataset_id": dataset_id,
        "parent_id": parent_id,
        "teacher_job_id": teacher_job_id,
        "key_id": key_id,
        "last_event": 1,
        **columns(idempotency),
    }
    job = session.scalar(insert(session, Job).on_conflict_do_nothing().returning(Job), values)
    if job is None:
        assert idempotency, "only an idempotency key can conflict"
        check_idempotency(session, owner, idempotency)
    assert job is not None
    request_id = {"request_id": actor.request_id} if actor else {}
    first_event = {"status": job.status, "reason": None, "message": None, **by(actor), **request_id}
    insert_event(session, job, job.last_event, "status", first_event)
    return job


def check_idempotency(session: Session, owner: str, idempotency: Idempotency) -> None:
    """Raise AlreadySubmitted or IdempotencyKeyReused as `add` does; called before the references are checked again."""
    earlier = find_repeated(session, Job, owner, idempotency)
    if earlier is not None:
        raise AlreadySubmitted(earlier.id)


def claim(
    session: Session,
    owner: str,
    lease_seconds: float,
    job_id: str | None = None,
    capacity: GpuCapacity = CPU_ONLY,
    *,
    among: Collection[str] | None = None,
    exclusions: ClaimExclusions = NO_EXCLUSIONS,
) -> Lease | None:
    """Start a new attempt of the next job that fits the capacity; return its lease, or None if there is no such job.

    The order is by priority; within a priority, owners take turns with their oldest job (`store.scheduling.queue`).
    `job_id` or `among` restrict the choice to these ids. Jobs in `exclusions` are skipped, and no GPUs are reserved for
    them. A single statement claims the job, so that only one of several concurrent workers gets it.
    """
    candidates = [job_id] if job_id else among
    jobs = lock_jobs(
        session,
        Job.id == lock_next(session, capacity, candidates, exclusions),
        Job.status == JobStatus.QUEUED,
        status=JobStatus.RUNNING,
        attempt=Job.attempt + 1,
        lease_owner=owner,
        lease_expires_at=now() + lease_seconds,
        started_at=func.coalesce(Job.started_at, now()),
        not_before=None,
        status_reason_code=None,
        status_reason_message=None,
        status_reason_since=None,
    )
    if not jobs:
        return None
    [job] = jobs
    end_turn(session, job.owner)
    if job.progress:  # the speed of the attempt before says nothing about this one
        job.progress = job.progress | {"eta_seconds": None, "images_per_second": None}
    session.add(Attempt(job_id=job.id, number=job.attempt, owner=owner))
    add_status_event(session, job)
    return _lease_of(job, _request_id(session, job))


def renew(session: Session, lease: Lease, lease_seconds: float) -> Renewal:
    """Extend the lease; return it with the requested action. Raise LeaseLost if the attempt no longer runs."""
    job = lock_attempt(session, lease, lease_expires_at=now() + lease_seconds)
    return Renewal(_lease_of(job, lease.request_id), requested_action(job))


def finish(
    session: Session,
    lease: Lease,
    status: Literal[JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED],
    end_reason: EndReason,
    error: ErrorInfo | None = None,
) -> JobStatus:
    """End the job and return its status, which is `cancelled` if a cancel was accepted earlier.

    A job whose worker cancelled it, while the cancel was withdrawn, returns to the queue instead.

    A job that succeeds loses its training checkpoints, which serve only to resume; the caller deletes their files after
    the commit. Raises LeaseLost.
    """
    job = lock_attempt(session, lease)
    if job.cancel_requested_at is not None:
        status, end_reason, error = JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER, None
    elif status == JobStatus.CANCELLED:
        return return_to_queue(session, job, AttemptEnd.RELEASED)
    if status == JobStatus.SUCCEEDED:
        session.execute(delete(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.kind == "training"))
    end_attempt(session, job, AttemptEnd(status))
    end_job(session, job, status, end_reason, error)
    return job.status


def requeue(
    session: Session,
    lease: Lease,
    reason: WaitingReason | None = None,
    message: str = "",
    *,
    delay: float = 0.0,
    attempt_counts: bool,
) -> JobStatus:
    """Return the job to the queue; return its new status. No worker claims it for `delay` seconds.

    A job whose cancel was accepted is cancelled instead; one whose pause was accepted is paused. `attempt_counts` means
    that the trainer died, see `store.states.MAX_WITHOUT_PROGRESS`.

    Raises LeaseLost.
    """
    end = AttemptEnd.CRASHED if attempt_counts else AttemptEnd.RELEASED
    return return_to_queue(session, lock_attempt(session, lease), end, reason, message, delay)


def requeue_expired(session: Session) -> list[str]:
    """Take back all jobs whose lease has expired; return the ids of those that are queued again.

    The others are cancelled or paused if that was accepted, or fail as `poison`.
    """
    lost = lock_jobs(session, Job.status == JobStatus.RUNNING, Job.lease_expires_at < now())
    return [job.id for job in lost if return_to_queue(session, job, AttemptEnd.LOST) == JobStatus.QUEUED]


def release_running(session: Session, message: str) -> list[str]:
    """Return all running jobs to the queue; return their ids.

    `message` is the reason in the history. Call it while no worker runs, as after the restore of a backup.
    """
    running = lock_jobs(session, Job.status == JobStatus.RUNNING)
    for job in running:
        return_to_queue(session, job, AttemptEnd.RELEASED, message=f"Attempt {job.attempt}: {message}")
    return [job.id for job in running]


def fail_dependents(session: Session) -> list[str]:
    """Fail all queued jobs that depend on a job that has failed or was cancelled, and recursively theirs; return ids.

    A job depends on the job whose student it uses, a comparison on its runs, and a baseline or seed variant on its
    parent, because it serves the verdict on the parent alone.
    """
    ids: list[str] = []
    while failed := session.scalars(_failed_dependencies()).all():
        run = aliased(Job)
        compares = exists(select(run.id).where(is_compared(run, Job), run.id.in_(failed)).correlate(Job))
        needs_failed = or_(Job.teacher_job_id.in_(failed), Job.parent_id.in_(failed), compares)
        dependents = lock_jobs(session, Job.status == JobStatus.QUEUED, needs_failed)
        if not dependents:  # another transaction has changed them
            break
        for job in dependents:
            error = _dependency_error(session, job, failed)
            end_job(session, job, JobStatus.FAILED, EndReason.DEPENDENCY_FAILED, error)
        session.flush()
        ids += [job.id for job in dependents]
    return ids


@cache
def _failed_dependencies() -> Select[str]:
    """Return the query of failed and cancelled jobs that queued jobs depend on; it locks them against a resume."""
    dependent, run = aliased(Job), aliased(Job)
    queued = dependent.status == JobStatus.QUEUED
    teachers = select(dependent.teacher_job_id).where(queued, dependent.teacher_job_id.is_not(None))
    parents = select(dependent.parent_id).where(queued, dependent.parent_id.is_not(None))
    runs = select(run.id).where(queued, is_compared(run, dependent))
    failed = Job.status.in_([JobStatus.FAILED, JobStatus.CANCELLED])
    query = select(Job.id).where(failed, Job.id.in_(union(teachers, parents, runs))).order_by(Job.id)
    return query.with_for_update(read=True)


def _request_id(session: Session, job: Job) -> str | None:
    """Return the id of the request that submitted the job, from its first event; None: older than this field."""
    data = session.scalar(select(Event.data).where(Event.job_id == job.id, Event.seq == 1)) or {}
    return data.get("request_id")


def _lease_of(job: Job, request_id: str | None) -> Lease:
    assert job.lease_owner is not None and job.lease_expires_at is not None, "a running job has a lease"
    return Lease(job.id, job.attempt, job.lease_owner, job.lease_expires_at, job.devices, request_id, job.nodes)


def _dependency_error(session: Session, job: Job, failed: Collection[str]) -> ErrorInfo:
    uses_failed = job.teacher_job_id in failed
    other = session.get_one(Job, job.teacher_job_id if uses_failed else job.parent_id)
    dependency = f"Job {other.title}, for whose verdict this job runs,"
    if uses_failed:
        dependency = f"Job {other.title}, whose student this job uses,"
    elif job.kind == COMPARE:
        dependency = f"A run of the comparison of job {other.title}"
    return ErrorInfo(
        code="dependency_failed",
        message=f"{dependency} did not succeed.",
        hint="See why it ended, then `retry` or `resume` it: this job is then queued again.",
    )
