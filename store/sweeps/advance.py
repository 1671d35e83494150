"""Advance sweeps: read the results of their jobs and post the next ones.

Every process may advance every sweep at any time: `advance` locks the sweep's row first, and what it does depends on
the rows alone. The reapers of API and workers do it periodically, and a worker when a job of the sweep has ended.
"""

import logging
from collections.abc import Sequence

from pydantic import ValidationError
from sqlalchemy import or_, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from frs.events import ErrorInfo
from frs.spec import JobSpec
from store.db.audit import Actor
from store.db.database import Database, time_of
from store.db.sweep_tables import Sweep, Trial
from store.db.tables import Job
from store.jobs.submission import add_run_group, derived_specs
from store.settings import Settings
from store.states import ACTIVE_SWEEPS, SWEEP_HINTS, JobStatus, SearchEnd, SweepFailure, SweepStatus
from store.sweeps import confirmation, members, search, space, trials
from store.sweeps.definition import SweepSpec
from store.sweeps.limits import find_obstacle, free_places
from store.sweeps.lock import lock_sweeps

MIN_FAILURES = 3
"""Failed trials from which on a sweep fails if they are more than half of the trials that have ended."""
_MAX_MESSAGE = 500
_log = logging.getLogger(__name__)


def advance_all(database: Database, settings: Settings) -> None:
    """Advance every active sweep, each in a transaction of its own. Raises if the database is not available."""
    with database.read() as session:
        ids = session.scalars(select(Sweep.id).where(Sweep.status.in_(ACTIVE_SWEEPS)).order_by(Sweep.id)).all()
    for sweep_id in ids:
        try:
            _advance_and_commit(database, settings, sweep_id)
        except (OperationalError, InterfaceError):
            raise
        except Exception:  # one sweep must not keep the others from advancing
            _log.exception("A sweep cannot be advanced.", extra={"sweep_id": sweep_id})


def advance_sweep_of(database: Database, settings: Settings, job_id: str) -> None:
    """Advance the sweep that the job belongs to, as a trial or in the run group of the confirming job, if any."""
    with database.read() as session:
        parent = select(Job.parent_id).where(Job.id == job_id).scalar_subquery()
        of_trial = select(Trial.sweep_id).where(Trial.job_id == job_id).scalar_subquery()
        belongs = or_(Sweep.id == of_trial, Sweep.confirm_job_id == job_id, Sweep.confirm_job_id == parent)
        sweep_id = session.scalar(select(Sweep.id).where(belongs))
    if sweep_id:
        _advance_and_commit(database, settings, sweep_id)


def advance(session: Session, settings: Settings, sweep_id: str) -> list[str]:
    """Bring a sweep up to date with its jobs and post its next jobs; return their ids. The caller commits.

    Idempotent: without a change of its jobs, a second call posts nothing. A sweep that is not active is left alone.
    """
    for sweep in lock_sweeps(session, Sweep.id == sweep_id, Sweep.status.in_(ACTIVE_SWEEPS)):
        try:
            spec = SweepSpec.model_validate(sweep.spec)
        except ValidationError:
            return _fail(session, sweep, SweepFailure.SPEC_UNREADABLE, "This version cannot read the stored sweep.")
        if sweep.status == SweepStatus.SEARCHING:
            return _search(session, settings, sweep, spec)
        return _confirm(session, settings, sweep, spec)
    return []


def _advance_and_commit(database: Database, settings: Settings, sweep_id: str) -> None:
    with database.write() as session:
        posted = advance(session, settings, sweep_id)
        session.commit()
    if posted:
        _log.info("A sweep was advanced. Posted: %s.", posted, extra={"sweep_id": sweep_id})


def _search(session: Session, settings: Settings, sweep: Sweep, spec: SweepSpec) -> list[str]:
    """Post the next trials; if there are none and all have ended, choose the setting and confirm it."""
    rows = trials.read(session, sweep)
    if message := _too_many_failures(sweep, rows):
        return _fail(session, sweep, SweepFailure.TOO_MANY_FAILURES, message)
    if spec.max_minutes is not None and sum(row.seconds for row in rows) >= 60 * spec.max_minutes:
        members.cancel(session, sweep, _actor(sweep), (JobStatus.QUEUED, JobStatus.PAUSED))
        rows = trials.read(session, sweep)
        has_ended = all(row.status.is_terminal for row in rows)
        return _choose(session, settings, sweep, spec, rows, SearchEnd.MAX_MINUTES) if has_ended else []
    results = trials.results(rows)
    active = sum(not result.ended for result in results)
    runs = search.next_runs(spec, results, max(0, spec.concurrency - active))
    if runs:
        return _post_trials(session, settings, sweep, spec, len(rows), runs)
    if active:
        return []
    end = SearchEnd.COMPLETE if search.is_within_budget(spec, results) else SearchEnd.MAX_JOBS
    return _choose(session, settings, sweep, spec, rows, end)


def _post_trials(
    session: Session, settings: Settings, sweep: Sweep, spec: SweepSpec, posted: int, runs: Sequence[search.Run]
) -> list[str]:
    """Post as many of the runs as the owner's limits admit now; `posted` trials have been posted before."""
    if obstacle := find_obstacle(session, sweep, spec.spec):
        return _fail(session, sweep, *obstacle)
    job_ids = []
    admitted = runs[: free_places(session, settings, sweep)]
    for number, run in enumerate(admitted, start=posted + 1):
        job_spec = space.trial_spec(spec, sweep.id, number, run.setting, run.rung, run.seed)
        job, _ = _add(session, sweep, job_spec)
        row = {"setting": run.setting, "rung": run.rung, "seed": run.seed, "job_id": job.id}
        session.add(Trial(sweep_id=sweep.id, number=number, **row))
        job_ids.append(job.id)
    session.flush()
    return job_ids


def _choose(
    session: Session, settings: Settings, sweep: Sweep, spec: SweepSpec, rows: Sequence[Trial], end: SearchEnd
) -> list[str]:
    """Choose the best setting and post the confirming job."""
    sweep.search_end = end
    best = search.best(spec, trials.results(rows))
    if best is None:
        message = "No setting has a result of every tuning seed."
        return _fail(session, sweep, SweepFailure.NO_RESULT, message + _last_error(rows))
    sweep.best_setting, sweep.status = best.setting, SweepStatus.CONFIRMING
    return _confirm(session, settings, sweep, spec)


def _confirm(session: Session, settings: Settings, sweep: Sweep, spec: SweepSpec) -> list[str]:
    """Post the confirming job with its run group, or read its result."""
    jobs = confirmation.jobs_of(session, sweep)
    if not jobs:
        return _post_confirming_job(session, settings, sweep, spec)
    if failed := confirmation.failed_job(jobs):
        message = f"Job {failed.id} ended as {failed.end_reason}."
        return _fail(session, sweep, SweepFailure.CONFIRMATION_FAILED, message)
    if result := confirmation.result(session, jobs):
        sweep.result = result.model_dump(mode="json")
        sweep.status, sweep.finished_at = SweepStatus.SUCCEEDED, time_of(session)
    return []


def _post_confirming_job(session: Session, settings: Settings, sweep: Sweep, spec: SweepSpec) -> list[str]:
    assert sweep.best_setting is not None, "a setting is chosen before it is confirmed"
    job_spec = space.confirming_spec(spec, sweep.id, sweep.best_setting)
    if obstacle := find_obstacle(session, sweep, spec.spec):
        return _fail(session, sweep, *obstacle)
    if free_places(session, settings, sweep) < 1 + sum(1 for _ in derived_specs(job_spec)):
        return []
    job, added = _add(session, sweep, job_spec)
    sweep.confirm_job_id = job.id
    session.flush()
    return added


def _add(session: Session, sweep: Sweep, spec: JobSpec) -> tuple[Job, list[str]]:
    return add_run_group(
        session,
        spec,
        dataset_id=sweep.dataset_id,
        actor=_actor(sweep),
        details={"sweep": sweep.id},
    )


def _fail(session: Session, sweep: Sweep, failure: SweepFailure, message: str) -> list[str]:
    """End the sweep with an error and pause its unfinished jobs, so that it can be resumed; return no ids."""
    error = ErrorInfo(code=failure, message=message[:_MAX_MESSAGE], hint=SWEEP_HINTS[failure])
    sweep.status, sweep.error, sweep.finished_at = SweepStatus.FAILED, error.model_dump(), time_of(session)
    session.flush()
    members.pause(session, sweep, _actor(sweep))
    return []


def _too_many_failures(sweep: Sweep, rows: Sequence[Trial]) -> str | None:
    """Return the message if most of the trials that ended since the sweep was resumed have failed."""
    failed = sum(row.status == JobStatus.FAILED for row in rows) - sweep.failures_before_resume
    ended = sum(row.status.is_terminal for row in rows) - sweep.failures_before_resume
    if failed < MIN_FAILURES or 2 * failed <= ended:
        return None
    return f"{failed} of {ended} trials failed.{_last_error(rows)}"


def _last_error(rows: Sequence[Trial]) -> str:
    for row in reversed(rows):
        if row.error:
            return f" Trial {row.number}: {row.error['code']}: {row.error['message']}"
    return ""


def _actor(sweep: Sweep) -> Actor:
    return Actor(sweep.owner, sweep.key_id)
