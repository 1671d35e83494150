"""Submit, list, read and cancel jobs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, bindparam, or_, select
from sqlalchemy.orm import Session

from api import disk_quota
from api.context import Context
from api.http.auth import Caller
from api.http.errors import InvalidField
from api.http.pagination import newest_first
from api.http.schemas import Page
from api.jobs import quota, references
from api.jobs.schemas import ActionRequest, Attempt, DependentJob, Job, JobDetails
from frs.detector_spec import InitFromJob
from frs.spec import JobSpec, Kind
from store.db import queries, tables
from store.db.database import Database, time_of
from store.db.idempotency import Idempotency
from store.errors import JobNotFound
from store.jobs import actions, lifecycle
from store.jobs.submission import add_run_group, derived_specs
from store.scheduling import queue
from store.scheduling.waiting import waiting_reasons
from store.states import JobStatus, Scope, allowed_actions


def _children_query() -> Select[str, str | None, str]:
    job = tables.Job
    has_parent = job.parent_id.in_(bindparam("ids", expanding=True))
    return select(job.id, job.parent_id, job.kind).where(has_parent).order_by(queries.SEED, job.id)


_CHILDREN = _children_query()
"""Built once, because building the query takes longer than running it."""
_MAX_ATTEMPTS = 20


@dataclass(frozen=True)
class JobFilter:
    """Conditions of `GET /jobs`; None: no condition."""

    status: list[JobStatus] | None = None
    kind: list[Kind] | None = None
    name: str | None = None
    dataset: str | None = None
    tag: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    own: bool = False
    """Leave out the jobs of other owners."""


def submit(context: Context, caller: Caller, spec: JobSpec, idempotency_key: str | None) -> Job:
    """Add a job to the queue, with its baselines, seed variants and comparison, and return it.

    Raises InvalidField if something that the spec refers to is missing or does not fit, ApiError 403 if the caller may
    not set its priority, ApiError 403 or 429 if a quota is exceeded, AlreadySubmitted and IdempotencyKeyReused.
    """
    check_submittable(caller, spec)
    idempotency = Idempotency.of(idempotency_key, spec)
    with context.database.read() as session:
        if idempotency:
            lifecycle.check_idempotency(session, caller.owner, idempotency)
        spec = references.describe_student(session, caller, spec)
        dataset_id = references.check(session, context, caller, spec)
        disk_quota.check(session, context.settings, caller)
    with context.database.write() as session:
        quota.check(session, context.settings, caller, 1 + sum(1 for _ in derived_specs(spec)))
        job, added = add_run_group(session, spec, dataset_id=dataset_id, actor=caller.actor, idempotency=idempotency)
        session.commit()
    for job_id in added:
        context.wakeups.enqueue(job_id)  # after the commit, so that the worker finds the row
    with context.database.read() as session:
        [response] = _to_responses(session, [job])
    return response


def check_submittable(caller: Caller, spec: JobSpec) -> None:
    """Raise InvalidField for a spec that is readable but not accepted.

    Not accepted are comparisons, and a teacher's neck and head for a student that has trained ones of its own. Raises
    ApiError 403 if the caller may not set the priority.
    """
    if spec.kind == "compare":
        hint = "Submit a `distill` job with `baseline: true` or `{seeds: n}`; the service adds its comparison."
        raise InvalidField("kind", "invalid_spec", "Only the service creates jobs of kind `compare`.", hint)
    has_trained_head = spec.kind == "quantize" or isinstance(getattr(spec.student, "init", None), InitFromJob)
    if spec.distillation.init_from_teacher and has_trained_head:
        detail = "The student starts from trained weights: the teacher's would replace those of its neck and head."
        hint = "Remove `distillation.init_from_teacher`, or choose another `student.init`."
        raise InvalidField("distillation.init_from_teacher", "invalid_spec", detail, hint)
    check_priority(caller, spec.priority)


def check_priority(caller: Caller, priority: int) -> None:
    """Raise ApiError 403 if the priority is above 0 and the caller lacks the scope `priority`."""
    if priority > 0:
        caller.require(Scope.PRIORITY, f"Priority {priority}, like every priority above 0,")


def list_jobs(database: Database, caller: Caller, job_filter: JobFilter, limit: int, cursor: str | None) -> Page[Job]:
    """Return a page of jobs, newest first. Raises InvalidField for an invalid cursor."""
    with database.read() as session:
        query = _filtered(session, caller, job_filter)
        rows, next_cursor = newest_first(session, query, tables.Job, limit, cursor)
        return Page(data=_to_responses(session, rows), next_cursor=next_cursor)


def get_job(database: Database, caller: Caller, job_id: str) -> Job:
    """Return a job. Raises JobNotFound."""
    with database.read() as session:
        [job] = _to_responses(session, [get_row(session, caller, job_id)])
    return job


def get_details(database: Database, caller: Caller, job_id: str) -> JobDetails:
    """Return a job with its attempts. Raises JobNotFound."""
    with database.read() as session:
        row = get_row(session, caller, job_id)
        [job] = _to_responses(session, [row])
        attempts, requested = _attempts(session, job_id), _requested_action(session, row)
        needing = [] if row.status.is_terminal else queries.dependents(session, job_id)
        dependents = [DependentJob.model_validate(job) for job in needing if caller.may_see(job)]
    return JobDetails(**dict(job), attempts=attempts, requested_action=requested, dependents=dependents)


def cancel(database: Database, caller: Caller, job_id: str) -> Job:
    """Cancel a job and those of its children that have not ended. Raises JobNotFound, ActionNotAllowed."""
    with database.write() as session:
        get_row(session, caller, job_id)
        actions.cancel_group(session, job_id, caller.actor)
        lifecycle.fail_dependents(session)
        session.commit()
    return get_job(database, caller, job_id)


def get_row(session: Session, caller: Caller, job_id: str) -> tables.Job:
    """Return the row of a job. Raises JobNotFound, also if the job belongs to another owner."""
    job = caller.find_job(session, job_id)
    if job is None:
        raise JobNotFound("There is no job of this id.")
    return job


def _filtered(session: Session, caller: Caller, job_filter: JobFilter) -> Select[tables.Job]:
    job = tables.Job
    query = select(job).where(caller.visible(job, own=job_filter.own))
    if job_filter.status:
        query = query.where(job.status.in_(job_filter.status))
    if job_filter.kind:
        query = query.where(job.kind.in_(job_filter.kind))
    if job_filter.name is not None:
        query = query.where(job.name.icontains(job_filter.name, autoescape=True))
    if job_filter.dataset:
        dataset = caller.find_dataset(session, job_filter.dataset)
        query = query.where(job.dataset_id == (dataset.id if dataset else None))
    if job_filter.tag is not None:
        query = query.where(queries.has_tag(session, job_filter.tag))
    if job_filter.created_after:
        query = query.where(job.created_at >= job_filter.created_after.timestamp())
    if job_filter.created_before:
        query = query.where(job.created_at < job_filter.created_before.timestamp())
    return query


def _to_responses(session: Session, rows: Sequence[tables.Job]) -> list[Job]:
    queued = [job.id for job in rows if job.status == JobStatus.QUEUED]
    positions = queue.positions(session, queued) if queued else {}
    reasons, children = waiting_reasons(session, rows), _child_ids(session, rows)
    mAPs = queries.mAPs_of_students(session, [job.id for job in rows if job.attempt])
    at = time_of(session) if any(job.progress for job in rows) else 0.0
    return [
        Job.model_validate(
            {
                **_columns(job),
                "progress": current_progress(job, at),
                "mAP": mAPs.get(job.id),
                "is_terminal": job.status.is_terminal,
                "allowed_actions": allowed_actions(job.status),
                "status_reason": reasons.get(job.id),
                "queue_position": positions.get(job.id),
                "baseline_job_ids": children[job.id]["train"],
                "seed_job_ids": children[job.id]["distill"],
                "comparison_job_id": next(iter(children[job.id]["compare"]), None),
            }
        )
        for job in rows
    ]


def _attempts(session: Session, job_id: str) -> list[Attempt]:
    """Return the newest attempts of a job, oldest first."""
    table = tables.Attempt
    query = select(table).where(table.job_id == job_id).order_by(table.number.desc()).limit(_MAX_ATTEMPTS)
    return [Attempt.model_validate(_attempt(row)) for row in reversed(session.scalars(query).all())]


def _attempt(row: tables.Attempt) -> dict[str, Any]:
    columns = {name: getattr(row, name) for name in Attempt.model_fields if name != "worker"}
    return columns | {"worker": row.owner.partition(":")[0]}  # the id of a worker begins with its name


def _requested_action(session: Session, job: tables.Job) -> ActionRequest | None:
    """Return the cancel, pause or stop that a user requested; its event is among the newest ones of the job."""
    requested = [name for name in ("cancel", "pause", "stop") if getattr(job, f"{name}_requested_at") is not None]
    if not requested and job.status != JobStatus.PAUSED:
        return None
    action, event = (requested or ["pause"])[0], tables.Event
    took_effect_at_once = and_(event.type == "status", event.data["by"].as_string().is_not(None))
    is_request = or_(event.type == f"{action}_requested", took_effect_at_once)
    newest = select(event).where(event.job_id == job.id, is_request).order_by(event.seq.desc()).limit(1)
    request = session.scalar(newest)
    return ActionRequest(action=action, by=request.data.get("by"), at=request.at) if request else None


def current_progress(job: tables.Job, at: float) -> tables.Document | None:
    """Return the newest progress; without speed and remaining time unless the job runs under a lease valid at `at`.

    It is `stale` while the lease has expired and the job has not been requeued yet.
    """
    is_running = job.status == JobStatus.RUNNING
    if job.progress is None or (is_running and (job.lease_expires_at or 0.0) >= at):
        return job.progress
    return job.progress | {"eta_seconds": None, "images_per_second": None, "stale": is_running}


def _columns(job: tables.Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in Job.model_fields.keys() & tables.Job.__table__.columns.keys()}


def _child_ids(session: Session, rows: Sequence[tables.Job]) -> dict[str, dict[str, list[str]]]:
    """Return the ids of each job's children by kind, ordered by seed."""
    children: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for job_id, parent_id, kind in session.execute(_CHILDREN, {"ids": [row.id for row in rows]}):
        children[str(parent_id)][kind].append(job_id)
    return children
