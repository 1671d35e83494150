"""Metric curves of a job, downsampled so that a chart keeps its shape."""

import csv
import io
from collections.abc import Sequence
from math import isnan

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from api import metric_cache
from api.http.auth import Caller
from api.jobs.schemas import Metrics, MetricSeries, X
from api.jobs.service import get_row
from api.metric_cache import FINE, Curve, MetricCurveCache
from store.db.database import Database
from store.db.tables import Metric

_COLUMN = {"epoch": Metric.epoch, "time": Metric.at}
_STEPS_PER_QUERY = 1000


def read_metrics(
    database: Database,
    cache: MetricCurveCache,
    caller: Caller,
    job_id: str,
    keys: Sequence[str] | None,
    x: X,
    since: int,
    max_points: int,
) -> Metrics:
    """Return the points of the metrics `keys` (None: all) that were recorded after the event number `since`.

    Metrics without such points are omitted. Raises JobNotFound.
    """
    with database.read() as session:
        newest = get_row(session, caller, job_id).last_event
        if since or max_points > FINE:
            curves = metric_cache.read_curves(session, job_id, keys, since, newest)
        else:
            cached = cache.get(session, job_id, newest)
            curves = {key: cached[key] for key in dict.fromkeys(keys or cached) if key in cached}
        series = [_series(session, job_id, key, curve, x, max_points) for key, curve in curves.items()]
    return Metrics(series=series, next_since=newest)


def to_csv(metrics: Metrics, x: X) -> str:
    """Return the points as CSV text with the columns `key`, the name of the x axis, and `value`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", x, "value"])
    for series in metrics.series:
        writer.writerows((series.key, *point) for point in zip(series.x, series.y, strict=True))
    return text.getvalue()


def _series(session: Session, job_id: str, key: str, curve: Curve, x: X, max_points: int) -> MetricSeries:
    sample = curve.downsampled(max_points)
    defined = curve.values[~np.isnan(curve.values)]
    steps = sample.steps.tolist()
    x_by_step = dict(zip(steps, steps, strict=True)) if x == "step" else _read_x_by_step(session, job_id, key, x, steps)
    points = [
        (x_by_step[step], None if isnan(value) else value)
        for step, value in zip(steps, sample.values.tolist(), strict=True)
        if step in x_by_step
    ]
    last = curve.values[-1]
    return MetricSeries(
        key=key,
        x=[x for x, _ in points],
        y=[y for _, y in points],
        count=curve.count,
        min=defined.min() if len(defined) else None,
        max=defined.max() if len(defined) else None,
        last=None if isnan(last) else last,
        sampled=len(steps) < curve.count,
    )


def _read_x_by_step(session: Session, job_id: str, key: str, x: X, steps: Sequence[int]) -> dict[int, int | float]:
    """Return the epoch or time of each step.

    Another request may have updated the cached curve, so the newest steps can be missing in this session's snapshot.
    """
    x_by_step: dict[int, int | float] = {}
    for start in range(0, len(steps), _STEPS_PER_QUERY):
        conditions = (
            Metric.job_id == job_id,
            Metric.key == key,
            Metric.step.in_(steps[start : start + _STEPS_PER_QUERY]),
        )
        rows = session.execute(select(Metric.step, _COLUMN[x]).where(*conditions))
        x_by_step |= {row[0]: row[1] for row in rows}
    return x_by_step
