import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from api.context import Context
from api.http.auth import Caller
from api.http.errors import InvalidField
from api.http.pagination import newest_first
from api.http.schemas import Page
from api.jobs import quota, references
from api.jobs.references import JobReferences
from api.jobs.schemas import Job
from frs.spec import JobSpec, Kind, baseline_of, comparison_of, seed_variant
from store.db import queries, tables
from store.db.database import Database
from store.errors import ActionNotAllowed, JobNotFound
from store.jobs import actions, lifecycle
from store.jobs.lifecycle import Idempotency
from store.scheduling import queue
from store.scheduling.waiting import waiting_reasons
from store.states import JobStatus, allowed_actions


def _of_parents() -> Select[str, str | None, str]:
    job = tables.Job
    by_seed = job.spec["schedule"]["seed"].as_integer()
    of_parents = job.parent_id.in_(bindparam("ids", expanding=True))
    return select(job.id, job.parent_id, job.kind).where(of_parents).order_by(by_seed, job.id)


_CHILDREN = _of_parents()
"""Made once: to make it takes longer than to run it."""


@dataclass(frozen=True)
class JobFilter:
    status: list[JobStatus] | None = None
    kind: list[Kind] | None = None
    dataset: str | None = None
    tag: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def submit(context: Context, caller: Caller, spec: JobSpec, idempotency_key: str | None) -> Job:
    """Raises InvalidField for references that do not hold, Refusal 429, AlreadySubmitted, IdempotencyKeyReused."""
    check_not_comparison(spec)
    idempotency = Idempotency(idempotency_key, _digest(spec)) if idempotency_key else None
    with context.database.read() as session:
        if idempotency:
            lifecycle.check_idempotency(session, caller.owner, idempotency)
        found = references.check(session, context, caller, spec)
    children = list(derived_specs(spec))
    with context.database.write() as session:
        quota.check(session, context.settings, caller, 1 + len(children))
        job = _add(session, spec, caller, found, idempotency=idempotency)
        added = [job.id]
        for child in children:
            same = replace(found, teacher_job_id=found.teacher_job_id if child.teacher else None)
            added.append(_add(session, child, caller, same, parent_id=job.id).id)
        session.commit()
    for job_id in added:
        context.wakeups.enqueue(job_id)  # after the commit, so the worker finds the row
    with context.database.read() as session:
        [shown] = _shown(session, [job])
    return shown


def check_not_comparison(spec: JobSpec) -> None:
    """Raises InvalidField."""
    if spec.kind == "compare":
        hint = "Post a `distill` job with `baseline: true` or `{seeds: n}`; its comparison comes by itself."
        raise InvalidField("kind", "invalid_spec", "Comparisons are made by the service alone.", hint)


def derived_specs(spec: JobSpec) -> Iterator[JobSpec]:
    """Baselines, siblings of the further seeds, and last the comparison of all; nothing without a baseline."""
    yield from (baseline_of(spec, number) for number in range(spec.pairs))
    yield from (seed_variant(spec, number) for number in range(1, spec.pairs))
    if spec.pairs:
        yield comparison_of(spec)


def listing(database: Database, caller: Caller, wanted: JobFilter, limit: int, cursor: str | None) -> Page[Job]:
    with database.read() as session:
        query = _filtered(session, caller, wanted)
        rows, next_cursor = newest_first(session, query, tables.Job, limit, cursor)
        return Page(data=_shown(session, rows), next_cursor=next_cursor)


def find(database: Database, caller: Caller, job_id: str) -> Job:
    with database.read() as session:
        [job] = _shown(session, [row(session, caller, job_id)])
    return job


def cancel(database: Database, caller: Caller, job_id: str) -> Job:
    """With the jobs it brought along, as far as they have not ended. Raises JobNotFound, ActionNotAllowed."""
    with database.write() as session:
        row(session, caller, job_id)
        actions.cancel(session, job_id)
        for child in queries.children(session, job_id):
            with suppress(ActionNotAllowed):  # it has ended
                actions.cancel(session, child.id)
        session.commit()
    return find(database, caller, job_id)


def row(session: Session, caller: Caller, job_id: str) -> tables.Job:
    """Raises JobNotFound, for another owner's job too."""
    job = caller.job(session, job_id)
    if job is None:
        raise JobNotFound("No such job.")
    return job


def _add(session: Session, spec: JobSpec, caller: Caller, found: JobReferences, **more: Any) -> tables.Job:
    return lifecycle.add(session, spec, owner=caller.owner, key_id=caller.key_id, **asdict(found), **more)


def _digest(spec: JobSpec) -> str:
    """The same for specs that mean the same, however they are written."""
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()


def _filtered(session: Session, caller: Caller, wanted: JobFilter) -> Select[tables.Job]:
    job = tables.Job
    query = select(job).where(caller.visible(job))
    if wanted.status:
        query = query.where(job.status.in_(wanted.status))
    if wanted.kind:
        query = query.where(job.kind.in_(wanted.kind))
    if wanted.dataset:
        dataset = caller.dataset(session, wanted.dataset)
        query = query.where(job.dataset_id == (dataset.id if dataset else None))
    if wanted.tag is not None:
        query = query.where(queries.has_tag(session, wanted.tag))
    if wanted.created_after:
        query = query.where(job.created_at >= wanted.created_after.timestamp())
    if wanted.created_before:
        query = query.where(job.created_at < wanted.created_before.timestamp())
    return query


def _shown(session: Session, rows: Sequence[tables.Job]) -> list[Job]:
    queued = [job.id for job in rows if job.status == JobStatus.QUEUED]
    positions = queue.positions(session, queued) if queued else {}
    reasons, children = waiting_reasons(session, rows), _children(session, rows)
    return [
        Job.model_validate(
            {
                **_columns(job),
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


def _columns(job: tables.Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in Job.model_fields.keys() & tables.Job.__table__.columns.keys()}


def _children(session: Session, rows: Sequence[tables.Job]) -> dict[str, dict[str, list[str]]]:
    """Ids of each job's children by kind, in the order of their seeds."""
    children: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for job_id, parent_id, kind in session.execute(_CHILDREN, {"ids": [row.id for row in rows]}):
        children[str(parent_id)][kind].append(job_id)
    return children
