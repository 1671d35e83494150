"""The responses of sweeps, from their rows."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from api.sweeps.schemas import Confirmation, SettingRow, SweepDetails, SweepTrial
from frs.evaluation import verdict as verdicts
from store.db import sweep_tables
from store.db.sweep_tables import Trial
from store.db.tables import Job
from store.states import TERMINAL, JobStatus
from store.stored_documents import read_document
from store.sweeps import confirmation, search, space
from store.sweeps.confirmation import Result
from store.sweeps.definition import SweepSpec
from store.sweeps.trials import to_result

_COLUMNS = ("id", "name", "owner", "status", "search_end", "error", "confirm_job_id", "created_at", "finished_at")
_COUNTS = ("trials_posted", "trials_ended", "trials_failed", "minutes")


def count_trials(session: Session, sweep_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the counts of each sweep: posted, ended and failed trials, and their minutes."""
    trial = Trial
    ended, failed = (
        func.sum(case((trial.status.in_(statuses), 1), else_=0))
        for statuses in (TERMINAL, (JobStatus.FAILED, JobStatus.CANCELLED))
    )
    query = select(trial.sweep_id, func.count(), ended, failed, func.sum(trial.seconds) / 60)
    rows = session.execute(query.where(trial.sweep_id.in_(sweep_ids)).group_by(trial.sweep_id))
    counts = {sweep_id: dict(zip(_COUNTS, values, strict=True)) for sweep_id, *values in rows}
    return {sweep_id: counts.get(sweep_id, dict.fromkeys(_COUNTS, 0)) for sweep_id in sweep_ids}


def summary(sweep: sweep_tables.Sweep, counts: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `schemas.Sweep`; `counts` are those of `count_trials`."""
    spec = read_document(SweepSpec, sweep.spec)
    columns = {name: getattr(sweep, name) for name in _COLUMNS}
    return columns | counts | {"spec": spec or sweep.spec, "settings": space.count_settings(spec) if spec else 0}


def details(session: Session, sweep: sweep_tables.Sweep, fields: dict[str, Any]) -> SweepDetails:
    """Return the response with the results; `fields` are those of the summary.

    A sweep whose spec this version cannot read has none: without it, trials have no values.
    """
    spec = read_document(SweepSpec, sweep.spec)
    if spec is None:
        return SweepDetails(**fields, table=[], best=None, confirmation=None, trials=[])
    query = select(Trial, Job.status).outerjoin(Job, Job.id == Trial.job_id).where(Trial.sweep_id == sweep.id)
    trials = session.execute(query.order_by(Trial.number)).all()
    results = [to_result(trial) for trial, _ in trials]
    ranked = search.ranked(spec, results)
    others = [group for group in search.summarise(spec, results) if group.mean is None]
    table = [_setting_row(spec, group) for group in [*ranked, *others]]
    best = next((row for row in table if row.setting == sweep.best_setting), None)
    return SweepDetails(
        **fields,
        table=table,
        best=best,
        confirmation=_confirmation(sweep, spec) if best else None,
        trials=[_trial(spec, trial, status) for trial, status in trials],
    )


def _setting_row(spec: SweepSpec, group: search.SettingResult) -> SettingRow:
    return SettingRow(
        setting=group.setting,
        values=space.setting(spec, group.setting),
        epochs=spec.rungs[group.rung],
        seeds=len(group.scores),
        mAP=group.mean,
        interval=group.interval,
    )


def _confirmation(sweep: sweep_tables.Sweep, spec: SweepSpec) -> Confirmation:
    result = read_document(Result, sweep.result)
    comparison = result.comparison if result else None
    caveats = [verdicts.caveat(comparison) if comparison else "", confirmation.CAVEAT]
    return Confirmation(
        job_id=sweep.confirm_job_id,
        first_seed=spec.first_confirming_seed,
        seeds=spec.confirm_seeds if spec.spec.kind == "distill" else 1,
        mAP=result and result.mAP,
        comparison=comparison,
        verdict=verdicts.verdict(comparison) if result else None,
        verdict_by=verdicts.verdict_by(comparison) if comparison else None,
        interval=comparison.decisive if comparison else None,
        caveat=" ".join(filter(None, caveats)),
    )


def _trial(spec: SweepSpec, trial: Trial, status: JobStatus | None) -> SweepTrial:
    """Return a trial; `status` is the present one of its job, None if the job was deleted."""
    return SweepTrial(
        number=trial.number,
        setting=trial.setting,
        epochs=spec.rungs[trial.rung],
        seed=trial.seed,
        job_id=trial.job_id,
        status=status or trial.status,
        mAP=trial.score,
        minutes=trial.seconds / 60,
        error=trial.error,
    )
