"""A job's curves, thinned out so that a chart of them looks the same."""

import csv
import io
from collections.abc import Iterator, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.caller import Caller
from api.jobs.schemas import Metrics, Series, X
from api.jobs.service import row
from store.database import Database
from store.tables import Metric

Point = tuple[float, float | None]
"""x and y."""
_COLUMN = {"step": Metric.step, "epoch": Metric.epoch, "time": Metric.at}


def read(
    database: Database, caller: Caller, job_id: str, keys: Sequence[str] | None, x: X, since: int, max_points: int
) -> Metrics:
    """Points written after number `since`, of `keys` or of all; a series without any is left out."""
    with database.read() as session:
        newest = row(session, caller, job_id).last_event
        wanted = dict.fromkeys(keys) if keys else _keys(session, job_id)
        found = {key: _points(session, job_id, key, x, since, newest) for key in wanted}
    series = [_series(key, points, max_points) for key, points in found.items() if points]
    return Metrics(series=series, next_since=newest)


def thin_out(points: Sequence[Point], most: int) -> Sequence[Point]:
    """At most `most` of them: the first, the last, and from 4 on the lowest and highest of every stretch between."""
    if len(points) <= most:
        return points
    stretches = (most - 2) // 2
    inner = len(points) - 2
    kept = [points[0]]
    for number in range(stretches):
        stretch = points[1 + inner * number // stretches : 1 + inner * (number + 1) // stretches]
        kept += _extremes(stretch)
    return [*kept, points[-1]]


def as_csv(metrics: Metrics, x: X) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", x, "value"])
    for series in metrics.series:
        writer.writerows((series.key, *point) for point in zip(series.x, series.y, strict=True))
    return text.getvalue()


def _keys(session: Session, job_id: str) -> Iterator[str]:
    """Each found from the one before: a handful of look-ups in the index where a job has a million rows."""
    key = session.scalar(select(func.min(Metric.key)).where(Metric.job_id == job_id))
    while key is not None:
        yield key
        key = session.scalar(select(func.min(Metric.key)).where(Metric.job_id == job_id, Metric.key > key))


def _points(session: Session, job_id: str, key: str, x: X, since: int, newest: int) -> list[Point]:
    these = (Metric.job_id == job_id, Metric.key == key, Metric.seq > since, Metric.seq <= newest)
    rows = session.execute(select(_COLUMN[x], Metric.value).where(*these).order_by(Metric.step))
    return [(place, value) for place, value in rows]


def _series(key: str, points: Sequence[Point], max_points: int) -> Series:
    values = [y for _, y in points if y is not None]
    kept = thin_out(points, max_points)
    return Series(
        key=key,
        x=[x for x, _ in kept],
        y=[y for _, y in kept],
        count=len(points),
        min=min(values, default=None),
        max=max(values, default=None),
        last=points[-1][1],
        sampled=len(kept) < len(points),
    )


def _extremes(stretch: Sequence[Point]) -> list[Point]:
    """The lowest and the highest, in their order; where all are null, one of them."""
    known = [(y, number) for number, (_, y) in enumerate(stretch) if y is not None]
    if not known:
        return list(stretch[:1])
    return [stretch[number] for number in sorted({min(known)[1], max(known)[1]})]
