"""The curves of several jobs on one grid of steps."""

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
"""Value by step."""


def aligned(
    context: Context, caller: Caller, job_ids: Sequence[str], keys: Sequence[str] | None, max_points: int
) -> list[Curve]:
    """Each job's own points, thinned out to its share of `max_points`; at all of these steps every job's value."""
    share = max(2, max_points // len(job_ids))
    found = {job_id: _series(context, caller, job_id, keys, share) for job_id in job_ids}
    there_are = dict.fromkeys(key for of_job in found.values() for key in of_job)
    with context.database.read() as session:
        return [
            _curve(session, key, {job_id: of_job.get(key) for job_id, of_job in found.items()}) for key in there_are
        ]


def _series(
    context: Context, caller: Caller, job_id: str, keys: Sequence[str] | None, max_points: int
) -> dict[str, MetricSeries]:
    found = metrics.read(context.database, context.curves, caller, job_id, keys, "step", 0, max_points)
    return {series.key: series for series in found.series}


def _curve(session: Session, key: str, found: dict[str, MetricSeries | None]) -> Curve:
    steps = sorted({int(step) for series in found.values() if series for step in series.x})
    points = {job_id: _points(session, job_id, key, series, steps) for job_id, series in found.items()}
    return Curve(
        key=key,
        x=steps,
        y=[[of_job.get(step) for step in steps] for of_job in points.values()],
        sampled=any(series.sampled for series in found.values() if series),
    )


def _points(session: Session, job_id: str, key: str, series: MetricSeries | None, steps: Sequence[int]) -> Points:
    if series is None:
        return {}
    if not series.sampled:
        return dict(zip(map(int, series.x), series.y, strict=True))
    these = (Metric.job_id == job_id, Metric.key == key, Metric.step.in_(steps))
    return {row[0]: row[1] for row in session.execute(select(Metric.step, Metric.value).where(*these))}
