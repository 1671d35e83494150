"""Add, stop, resume and delete sweeps. As in `store.jobs.actions`, each leaves the commit to its caller."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.db import audit, idempotency, ids
from store.db.audit import Actor
from store.db.database import insert
from store.db.idempotency import Idempotency
from store.db.sweep_tables import Sweep
from store.errors import SweepActionNotAllowed, SweepNotFound
from store.jobs.submission import pin_references
from store.states import ACTIVE_SWEEPS, JobStatus, SweepStatus
from store.sweeps import members, trials
from store.sweeps.definition import SweepSpec
from store.sweeps.lock import lock_sweeps

_RESUMABLE = (SweepStatus.STOPPED, SweepStatus.FAILED)
_UNFINISHED_JOBS = (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED)


def find_repeated(session: Session, spec: SweepSpec, owner: str, idempotency_key: str | None) -> Sweep | None:
    """Return the sweep that the owner posted with this idempotency key; None if there is none.

    Raises IdempotencyKeyReused if it was a different request.
    """
    return idempotency.find_repeated(session, Sweep, owner, Idempotency.of(idempotency_key, spec))


def add(
    session: Session,
    spec: SweepSpec,
    *,
    dataset_id: str,
    actor: Actor,
    idempotency_key: str | None = None,
) -> tuple[Sweep, bool]:
    """Add a sweep; return it and whether it is new: the owner may have sent the same request under the same key.

    The caller has checked the spec, its references and the limits. Raises IdempotencyKeyReused.
    """
    pinned = spec.model_copy(update={"spec": pin_references(session, spec.spec, actor)})
    values = {
        "id": ids.new_id("sweep"),
        "name": spec.name,
        "owner": actor.owner,
        "key_id": actor.key_id,
        "spec": pinned.model_dump(mode="json"),
        "dataset_id": dataset_id,
        **idempotency.columns(Idempotency.of(idempotency_key, spec)),
    }
    sweep = session.scalar(insert(session, Sweep).on_conflict_do_nothing().returning(Sweep), values)
    if sweep is None:
        earlier = find_repeated(session, spec, actor.owner, idempotency_key)
        assert earlier is not None, "only an idempotency key can conflict"
        return earlier, False
    audit.record(session, actor, "sweep.create", [sweep.id], name=spec.name, dataset=dataset_id)
    return sweep, True


def count_active(session: Session, owner: str) -> int:
    """Return the number of the owner's sweeps that post jobs."""
    is_active = (Sweep.owner == owner, Sweep.status.in_(ACTIVE_SWEEPS))
    return session.scalars(select(func.count()).select_from(Sweep).where(*is_active)).one()


def stop(session: Session, sweep_id: str, actor: Actor) -> Sweep:
    """Post no more jobs, and pause those that have not ended. Idempotent.

    Raises SweepNotFound, and SweepActionNotAllowed if the sweep has ended.
    """
    for sweep in lock_sweeps(
        session, Sweep.id == sweep_id, Sweep.status.in_(ACTIVE_SWEEPS), status=SweepStatus.STOPPED
    ):
        members.pause(session, sweep, actor)
        audit.record(session, actor, "sweep.stop", [sweep.id])
        return sweep
    sweep = _get(session, sweep_id)
    if sweep.status != SweepStatus.STOPPED:
        raise SweepActionNotAllowed(f"A sweep that has {sweep.status} cannot be stopped.")
    return sweep


def resume(session: Session, sweep_id: str, actor: Actor) -> tuple[Sweep, list[str]]:
    """Continue a sweep that was stopped or has failed; return it and the ids of the continued jobs.

    Its jobs are posted with the actor's key from now on, if the actor is its owner. Trials that have failed no longer
    count towards `too_many_failures`. A sweep that is active is returned as it is.

    Raises SweepNotFound, and SweepActionNotAllowed if the sweep has succeeded.
    """
    values = {"status": SweepStatus.SEARCHING, "error": None, "finished_at": None}
    for sweep in lock_sweeps(session, Sweep.id == sweep_id, Sweep.status.in_(_RESUMABLE), **values):
        if actor.owner == sweep.owner:
            sweep.key_id = actor.key_id
        if sweep.best_setting is None:
            sweep.search_end = None
        else:
            sweep.status = SweepStatus.CONFIRMING
        rows = trials.read(session, sweep)  # a job that was retried meanwhile has not failed
        sweep.failures_before_resume = sum(row.status == JobStatus.FAILED for row in rows)
        audit.record(session, actor, "sweep.resume", [sweep.id])
        return sweep, members.unpause(session, sweep, actor)
    sweep = _get(session, sweep_id)
    if sweep.status not in ACTIVE_SWEEPS:
        raise SweepActionNotAllowed("A sweep that has succeeded cannot be resumed.", "Post a new sweep.")
    return sweep, []


def delete(session: Session, sweep_id: str, actor: Actor) -> None:
    """Delete a sweep that is not active. Its jobs are kept; those that have not ended are cancelled.

    Raises SweepNotFound, SweepActionNotAllowed.
    """
    for sweep in lock_sweeps(session, Sweep.id == sweep_id, Sweep.status.not_in(ACTIVE_SWEEPS)):
        members.cancel(session, sweep, actor, _UNFINISHED_JOBS)
        session.delete(sweep)
        session.flush()
        audit.record(session, actor, "sweep.delete", [sweep_id])
        return
    _get(session, sweep_id)
    raise SweepActionNotAllowed("A sweep that is active cannot be deleted.", "Stop it first.")


def _get(session: Session, sweep_id: str) -> Sweep:
    sweep = session.get(Sweep, sweep_id, populate_existing=True)
    if sweep is None:
        raise SweepNotFound(f"No sweep {sweep_id}.")
    return sweep
