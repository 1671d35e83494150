"""Curves of several jobs on a common grid of steps."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.compare.schemas import Curve
from api.context import Context
from api.http.auth import Caller
from api.jobs import metrics
from api.jobs.schemas import MetricSeries
from store.db.tables import Metric

Points = dict[int, float | None]
"""Value by step; None where the metric is undefined."""


def align_curves(
    context: Context, caller: Caller, job_ids: Sequence[str], keys: Sequence[str] | None, max_points: int
) -> list[Curve]:
    """Return one curve per metric, with the values of all jobs on the union of their steps.

    The points of each job are first downsampled to an equal part of `max_points`. Raises JobNotFound.
    """
    points_per_job = max(2, max_points // len(job_ids))
    series = {job_id: _read_series(context, caller, job_id, keys, points_per_job) for job_id in job_ids}
    all_keys = dict.fromkeys(key for series_by_key in series.values() for key in series_by_key)
    with context.database.read() as session:
        return [
            _align(session, key, {job_id: series_by_key.get(key) for job_id, series_by_key in series.items()})
            for key in all_keys
        ]


def _read_series(
    context: Context, caller: Caller, job_id: str, keys: Sequence[str] | None, max_points: int
) -> dict[str, MetricSeries]:
    curves = metrics.read_metrics(context.database, context.metric_cache, caller, job_id, keys, "step", 0, max_points)
    return {series.key: series for series in curves.series}


def _align(session: Session, key: str, series_by_job: dict[str, MetricSeries | None]) -> Curve:
    steps = sorted({int(step) for series in series_by_job.values() if series for step in series.x})
    points = {job_id: _read_values(session, job_id, key, series, steps) for job_id, series in series_by_job.items()}
    return Curve(
        key=key,
        x=steps,
        y=[[values.get(step) for step in steps] for values in points.values()],
        sampled=any(series.sampled for series in series_by_job.values() if series),
    )


def _read_values(session: Session, job_id: str, key: str, series: MetricSeries | None, steps: Sequence[int]) -> Points:
    """Return the values of a job at the given steps; from the database if its series is downsampled."""
    if series is None:
        return {}
    if not series.sampled:
        return dict(zip(map(int, series.x), series.y, strict=True))
    conditions = (Metric.job_id == job_id, Metric.key == key, Metric.step.in_(steps))
    return {row[0]: row[1] for row in session.execute(select(Metric.step, Metric.value).where(*conditions))}
