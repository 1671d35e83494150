"""Create, list, read, stop, resume and delete sweeps."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from api import disk_quota
from api.context import Context
from api.http.auth import Caller
from api.http.errors import ApiError, InvalidField
from api.http.pagination import newest_first
from api.http.schemas import Page
from api.http.validation import FieldError
from api.jobs import quota, references
from api.jobs.service import check_submittable
from api.sweeps import results
from api.sweeps.schemas import Sweep, SweepDetails
from frs.spec import JobSpec
from store.db import sweep_tables
from store.db.api_keys import lock_owner
from store.db.database import Database
from store.errors import SweepNotFound
from store.jobs.submission import derived_specs
from store.sweeps import actions, space
from store.sweeps.advance import advance
from store.sweeps.definition import SweepSpec

MAX_ACTIVE = 20
"""Maximum number of sweeps of an owner that post jobs."""


def create(context: Context, caller: Caller, spec: SweepSpec, idempotency_key: str | None) -> tuple[Sweep, bool]:
    """Check a sweep and everything that it refers to, add it and post its first trials; return it and if it is new.

    Raises InvalidField for the first invalid field or setting, ApiError 403 or 429 if a quota is exceeded or a scope
    is missing, and IdempotencyKeyReused.
    """
    with context.database.read() as session:
        if earlier := actions.find_repeated(session, spec, caller.owner, idempotency_key):
            return _to_responses(session, [earlier])[0], False
        dataset_id = _check(session, context, caller, spec)
        disk_quota.check(session, context.settings, caller)
    with context.database.write() as session:
        _check_limits(session, context, caller, spec)
        sweep, is_new = actions.add(
            session,
            spec,
            dataset_id=dataset_id,
            actor=caller.actor,
            idempotency_key=idempotency_key,
        )
        posted = advance(session, context.settings, sweep.id) if is_new else []
        session.commit()
        response = _to_responses(session, [sweep])[0]
    _wake_workers(context, posted)
    return response, is_new


def list_sweeps(database: Database, caller: Caller, limit: int, cursor: str | None) -> Page[Sweep]:
    """Return a page of sweeps, newest first. Raises InvalidField for an invalid cursor."""
    table = sweep_tables.Sweep
    with database.read() as session:
        rows, next_cursor = newest_first(session, select(table).where(caller.visible(table)), table, limit, cursor)
        return Page(data=_to_responses(session, rows), next_cursor=next_cursor)


def get(database: Database, caller: Caller, sweep_id: str) -> SweepDetails:
    """Return a sweep with its results. Raises SweepNotFound."""
    with database.read() as session:
        sweep = _get_row(session, caller, sweep_id)
        counts = results.count_trials(session, [sweep_id])
        return results.details(session, sweep, results.summary(sweep, counts[sweep_id]))


def stop(context: Context, caller: Caller, sweep_id: str) -> Sweep:
    """Stop a sweep. Raises SweepNotFound, SweepActionNotAllowed."""
    with context.database.write() as session:
        _get_row(session, caller, sweep_id)
        sweep = actions.stop(session, sweep_id, caller.actor)
        session.commit()
        return _to_responses(session, [sweep])[0]


def resume(context: Context, caller: Caller, sweep_id: str) -> Sweep:
    """Resume a sweep. Raises SweepNotFound, SweepActionNotAllowed, and ApiError 429 with too many active sweeps."""
    with context.database.write() as session:
        _get_row(session, caller, sweep_id)
        sweep, job_ids = actions.resume(session, sweep_id, caller.actor)
        _check_active_sweeps(session, sweep.owner, additional=0)
        job_ids += advance(session, context.settings, sweep_id)
        session.commit()
        response = _to_responses(session, [sweep])[0]
    _wake_workers(context, job_ids)
    return response


def delete(context: Context, caller: Caller, sweep_id: str) -> None:
    """Delete a sweep and keep its jobs. Raises SweepNotFound, SweepActionNotAllowed."""
    with context.database.write() as session:
        _get_row(session, caller, sweep_id)
        actions.delete(session, sweep_id, caller.actor)
        session.commit()


def _check(session: Session, context: Context, caller: Caller, spec: SweepSpec) -> str:
    """Return the id of the data set of the jobs. Raises InvalidField, and ApiError 403 for the priority."""
    try:
        job_specs = space.check(spec)
    except space.InvalidSweep as error:
        raise InvalidField(error.field, "invalid_spec", error.message, error.hint) from error
    try:
        check_submittable(caller, spec.spec)
        for job_spec in _distinct(job_specs):
            dataset_id = references.check(session, context, caller, job_spec)
    except InvalidField as error:
        raise _below_spec(error) from error
    return dataset_id


def _distinct(specs: Sequence[JobSpec]) -> Sequence[JobSpec]:
    """Return one spec for each way to check references: they depend on whether logits are distilled."""
    return list({spec.distils_logits: spec for spec in specs}.values())


def _below_spec(error: InvalidField) -> InvalidField:
    """Return the error of a job spec with its fields below `spec`."""
    fields = [FieldError(loc=f"spec.{item.loc}", code=item.code, message=item.message) for item in error.errors]
    return InvalidField("spec", error.code, error.detail, error.hint, errors=fields)


def _check_limits(session: Session, context: Context, caller: Caller, spec: SweepSpec) -> None:
    """Raise ApiError 429 if the owner has too many active sweeps, or no room for the confirming run group."""
    confirming = space.confirming_spec(spec, "", 0)
    quota.check(session, context.settings, caller, 1 + sum(1 for _ in derived_specs(confirming)))
    lock_owner(session, caller.owner)
    _check_active_sweeps(session, caller.owner, additional=1)


def _check_active_sweeps(session: Session, owner: str, additional: int) -> None:
    count = actions.count_active(session, owner)
    if count + additional > MAX_ACTIVE:
        detail = f"{owner} would have {count + additional} active sweeps; the limit is {MAX_ACTIVE}."
        raise ApiError(429, "quota_exceeded", detail, "Wait until some have ended, or stop some.")


def _get_row(session: Session, caller: Caller, sweep_id: str) -> sweep_tables.Sweep:
    """Return the row of a sweep. Raises SweepNotFound, also if the sweep belongs to another owner."""
    sweep = session.get(sweep_tables.Sweep, sweep_id)
    if sweep is None or not caller.may_see(sweep):
        raise SweepNotFound("There is no sweep of this id.")
    return sweep


def _to_responses(session: Session, rows: Sequence[sweep_tables.Sweep]) -> list[Sweep]:
    counts = results.count_trials(session, [row.id for row in rows])
    return [Sweep.model_validate(results.summary(row, counts[row.id])) for row in rows]


def _wake_workers(context: Context, job_ids: Sequence[str]) -> None:
    for job_id in job_ids:
        context.wakeups.enqueue(job_id)  # after the commit, so that the worker finds the row
