"""The life of a job: queued, running under a lease, ended. The database is the truth, messages are wakeups.

Every function takes a session of `Database.write` and leaves the commit to its caller, so that a transition, its event
and whatever else belongs to it stand or fall together. Every transition begins with one guarded UPDATE, see
`store.jobs.lease.lock`.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import cache
from typing import Literal

from sqlalchemy import Select, exists, func, or_, select, union
from sqlalchemy.orm import Session, aliased

from frs.events import ErrorInfo
from frs.spec import JobSpec
from store.db import ids
from store.db.database import insert, now
from store.db.queries import COMPARE, is_compared
from store.db.tables import DEFAULT_OWNER, Attempt, Job
from store.errors import AlreadySubmitted, IdempotencyKeyReused
from store.jobs.lease import Lease, Renewal, lock_attempt, requested_action, update_returning
from store.jobs.transitions import add_status_event, end_attempt, end_job, return_to_queue
from store.scheduling.queue import CPU_ONLY, NO_EXCLUSIONS, ClaimExclusions, GpuCapacity, lock_next
from store.states import AttemptEnd, EndReason, JobStatus, WaitingReason


@dataclass(frozen=True)
class Idempotency:
    """The client's `Idempotency-Key`, and a digest of the request it came with."""

    key: str
    digest: str


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
) -> Job:
    """A new job in the queue; references must have been checked.

    Raises AlreadySubmitted where this owner has made this request before, and IdempotencyKeyReused where the request
    was another one.
    """
    values = {
        "id": ids.new_id("job"),
        "name": spec.name,
        "kind": spec.kind,
        "spec": spec.model_dump(mode="json"),
        "owner": owner,
        "tags": list(spec.tags),
        "devices": 0 if spec.kind == COMPARE else spec.resources.devices,
        "priority": spec.priority,
        "dataset_id": dataset_id,
        "parent_id": parent_id,
        "teacher_job_id": teacher_job_id,
        "key_id": key_id,
        "last_event": 1,
        **({f"idempotency_{name}": value for name, value in asdict(idempotency).items()} if idempotency else {}),
    }
    job = session.scalar(insert(session, Job).on_conflict_do_nothing().returning(Job), values)
    if job is None:
        assert idempotency, "only an idempotency key makes two jobs collide"
        check_idempotency(session, owner, idempotency)
    assert job is not None
    add_status_event(session, job)
    return job


def check_idempotency(session: Session, owner: str, idempotency: Idempotency) -> None:
    """Raises AlreadySubmitted or IdempotencyKeyReused, as `add` does, before references are checked once more."""
    same_key = (Job.owner == owner, Job.idempotency_key == idempotency.key)
    earlier = session.scalar(select(Job).where(*same_key))
    if earlier is None:
        return
    if earlier.idempotency_digest == idempotency.digest:
        raise AlreadySubmitted(earlier.id)
    raise IdempotencyKeyReused("This Idempotency-Key was sent before with another request.")


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
    """The next job that fits the capacity (or that one, if it can run), now running under a new attempt. None: nothing to do.

    By priority, then age. One statement, so one of many claimers gets it. `among`: of these alone; `exclusions`: for none
    of those is any GPU kept.
    """
    these = [job_id] if job_id else among
    taken = update_returning(
        session,
        Job.id == lock_next(session, capacity, these, exclusions),
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
    if not taken:
        return None
    [job] = taken
    session.add(Attempt(job_id=job.id, number=job.attempt, owner=owner))
    add_status_event(session, job)
    return _lease_of(job)


def renew(session: Session, lease: Lease, lease_seconds: float) -> Renewal:
    """Raises LeaseLost when the attempt no longer holds the job."""
    job = lock_attempt(session, lease, events=0, lease_expires_at=now() + lease_seconds)
    return Renewal(_lease_of(job), requested_action(job))


def finish(
    session: Session,
    lease: Lease,
    status: Literal[JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED],
    end_reason: EndReason,
    error: ErrorInfo | None = None,
) -> JobStatus:
    """Ends the job; says how, for a cancel that was accepted earlier wins. Raises LeaseLost."""
    job = lock_attempt(session, lease)
    if job.cancel_requested_at is not None:
        status, end_reason, error = JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER, None
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
    """Gives the job back to the queue, for `delay` seconds to nobody; says where it went. Raises LeaseLost.

    A job whose cancel was accepted ends as cancelled instead, one whose pause was accepted is paused. `attempt_counts` is for a trainer that died: the third in
    a row without a newer training checkpoint ends the job as `poison`.
    """
    how = AttemptEnd.CRASHED if attempt_counts else AttemptEnd.RELEASED
    return return_to_queue(session, lock_attempt(session, lease), how, reason, message, delay)


def requeue_expired(session: Session) -> list[str]:
    """Takes back every job whose lease has expired; returns those that are in the queue again.

    The others end, as cancelled where that was accepted or as `poison`, or are paused where that was.
    """
    lost = update_returning(session, Job.status == JobStatus.RUNNING, Job.lease_expires_at < now())
    return [job.id for job in lost if return_to_queue(session, job, AttemptEnd.LOST) == JobStatus.QUEUED]


def fail_dependents(session: Session) -> list[str]:
    """Fails every queued job whose teacher's job, or a run it compares, has failed or was cancelled; returns their ids."""
    lost = session.scalars(_failed_dependencies()).all()
    if not lost:
        return []
    run = aliased(Job)
    incomparable = exists(select(run.id).where(is_compared(run, Job), run.id.in_(lost)).correlate(Job))
    hopeless = or_(Job.teacher_job_id.in_(lost), incomparable)
    orphans = update_returning(session, Job.status == JobStatus.QUEUED, hopeless)
    for job in orphans:
        end_job(session, job, JobStatus.FAILED, EndReason.DEPENDENCY_FAILED, _dependency_failed(job))
    return [job.id for job in orphans]


@cache
def _failed_dependencies() -> Select[str]:
    """Jobs that have not succeeded and that queued ones need; locked, so that nobody resumes them in the meantime."""
    waits, run = aliased(Job), aliased(Job)
    queued = waits.status == JobStatus.QUEUED
    teachers = select(waits.teacher_job_id).where(queued, waits.teacher_job_id.is_not(None))
    runs = select(run.id).where(queued, is_compared(run, waits))
    lost = Job.status.in_([JobStatus.FAILED, JobStatus.CANCELLED])
    query = select(Job.id).where(lost, Job.id.in_(union(teachers, runs))).order_by(Job.id)
    return query.with_for_update(read=True)


def _lease_of(job: Job) -> Lease:
    assert job.lease_owner is not None and job.lease_expires_at is not None, "a running job has a lease"
    return Lease(job.id, job.attempt, job.lease_owner, job.lease_expires_at, job.devices)


def _dependency_failed(job: Job) -> ErrorInfo:
    needed = f"Job {job.teacher_job_id}, whose student this job needs,"
    if job.kind == COMPARE:
        needed = f"A run of job {job.parent_id}'s comparison"
    return ErrorInfo(
        code="dependency_failed",
        message=f"{needed} did not succeed.",
        hint="See why it ended, then post the jobs again.",
    )
