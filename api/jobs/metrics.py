"""A job's curves, thinned out so that a chart of them looks the same."""

import csv
import io
from collections.abc import Sequence
from math import isnan

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.http.auth import Caller
from api.jobs.schemas import Metrics, MetricSeries, X
from api.jobs.service import row
from api.streaming import metric_cache
from api.streaming.metric_cache import FINE, Curve, MetricCache
from store.db.database import Database
from store.db.tables import Metric

_COLUMN = {"epoch": Metric.epoch, "time": Metric.at}
_AT_A_TIME = 1000


def read(
    database: Database,
    remembered: MetricCache,
    caller: Caller,
    job_id: str,
    keys: Sequence[str] | None,
    x: X,
    since: int,
    max_points: int,
) -> Metrics:
    """Points written after number `since`, of `keys` or of all; a series without any is left out."""
    with database.read() as session:
        newest = row(session, caller, job_id).last_event
        if since or max_points > FINE:
            found = metric_cache.read(session, job_id, keys, since, newest)
        else:
            known = remembered.of(session, job_id, newest)
            found = {key: known[key] for key in dict.fromkeys(keys or known) if key in known}
        series = [_series(session, job_id, key, curve, x, max_points) for key, curve in found.items()]
    return Metrics(series=series, next_since=newest)


def as_csv(metrics: Metrics, x: X) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", x, "value"])
    for series in metrics.series:
        writer.writerows((series.key, *point) for point in zip(series.x, series.y, strict=True))
    return text.getvalue()


def _series(session: Session, job_id: str, key: str, curve: Curve, x: X, max_points: int) -> MetricSeries:
    kept = curve.thinned(max_points)
    known = curve.values[~np.isnan(curve.values)]
    steps = kept.steps.tolist()
    place = dict(zip(steps, steps, strict=True)) if x == "step" else _places(session, job_id, key, x, steps)
    points = [
        (place[step], None if isnan(value) else value)
        for step, value in zip(steps, kept.values.tolist(), strict=True)
        if step in place
    ]
    last = curve.values[-1]
    return MetricSeries(
        key=key,
        x=[x for x, _ in points],
        y=[y for _, y in points],
        count=curve.count,
        min=known.min() if len(known) else None,
        max=known.max() if len(known) else None,
        last=None if isnan(last) else last,
        sampled=len(steps) < curve.count,
    )


def _places(session: Session, job_id: str, key: str, x: X, steps: Sequence[int]) -> dict[int, int | float]:
    """By step. Of a curve that another request has brought up to date, this session may not see the newest."""
    place: dict[int, int | float] = {}
    for start in range(0, len(steps), _AT_A_TIME):
        these = (Metric.job_id == job_id, Metric.key == key, Metric.step.in_(steps[start : start + _AT_A_TIME]))
        rows = session.execute(select(Metric.step, _COLUMN[x]).where(*these))
        place |= {row[0]: row[1] for row in rows}
    return place
