"""Curves that are looked at again and again: kept thinned out, so that only what is new has to be read.

A long curve takes the database longer to read than anybody waits. Jobs not asked for lately are forgotten.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Executable, func, select
from sqlalchemy.orm import Session

from store.db.tables import Event, Metric

FINE = 1000
"""Points of a curve that are kept; it grows to twice as many before it is thinned out again."""
MAX_CACHED_JOBS = 3_000_000
"""Points of all curves together, 16 bytes each."""
VOIDING = ("rewound", "status")
"""Events after which points may be gone: a later attempt, a retry."""

Places = NDArray[np.int64]
Values = NDArray[np.float64]
"""NaN, which the database does not take, where there is none."""


@dataclass
class Curve:
    steps: Places
    values: Values
    count: int = 0
    """Points there are; fewer are here where some were left out."""

    def __post_init__(self) -> None:
        self.count = self.count or len(self.steps)

    def thinned(self, most: int) -> "Curve":
        kept = thin_out(self.steps, self.values, most)
        return Curve(self.steps[kept], self.values[kept], self.count)

    def kept(self) -> "Curve":
        return self.thinned(FINE) if len(self.steps) > 2 * FINE else self

    def and_then(self, more: "Curve") -> "Curve":
        steps, values = np.concatenate([self.steps, more.steps]), np.concatenate([self.values, more.values])
        return Curve(steps, values, self.count + more.count).kept()


def thin_out(steps: Places, values: Values, most: int) -> Places:
    """Which at most `most` to keep: the first, the last, and from 4 on the lowest and highest of every stretch between."""
    count, stretches = len(steps), (most - 2) // 2
    if count <= most:
        return np.arange(count)
    ends, inner = np.array([0, count - 1]), steps[1:-1]
    if not stretches:
        return ends
    stretch = (inner - inner[0]) * stretches // (inner[-1] - inner[0] + 1)
    starts = np.flatnonzero(np.diff(stretch, prepend=-1))
    lengths = np.diff(starts, append=len(inner))
    low, high = (np.where(np.isnan(values[1:-1]), other, values[1:-1]) for other in (np.inf, -np.inf))
    lowest = low == np.repeat(np.minimum.reduceat(low, starts), lengths)
    highest = high == np.repeat(np.maximum.reduceat(high, starts), lengths)
    kept = [1 + _first_of_each(stretch, hits) for hits in (lowest, highest)]
    return np.unique(np.concatenate([ends, *kept]))


def read(session: Session, job_id: str, keys: Sequence[str] | None, since: int, newest: int) -> dict[str, Curve]:
    """Points written after number `since`, whole. A key without any is left out."""
    if since:
        found = _since(session, job_id, since, newest)
        return {key: found[key] for key in (dict.fromkeys(keys) if keys else sorted(found)) if key in found}
    wanted = dict.fromkeys(keys) if keys else _keys(session, job_id)
    curves = ((key, _whole(session, job_id, key, newest)) for key in wanted)
    return {key: curve for key, curve in curves if curve.count}


@dataclass
class _Job:
    newest: int
    curves: dict[str, Curve] = field(default_factory=dict)

    @property
    def points(self) -> int:
        return sum(len(curve.steps) for curve in self.curves.values())


class MetricCache:
    def __init__(self, remembered: int = MAX_CACHED_JOBS) -> None:
        self._remembered = remembered
        self._jobs: OrderedDict[str, _Job] = OrderedDict()
        self._points = 0
        self._lock = threading.Lock()

    def of(self, session: Session, job_id: str, newest: int) -> dict[str, Curve]:
        """All of a job up to number `newest`, of long ones no more points than a chart needs."""
        with self._lock:
            known = self._jobs.get(job_id)
        job = _brought_up(session, job_id, known, newest) if known else None
        if job is None:
            whole = read(session, job_id, None, 0, newest)
            job = _Job(newest, {key: curve.kept() for key, curve in whole.items()})
        self._remember(job_id, job)
        return job.curves

    def _remember(self, job_id: str, job: _Job) -> None:
        with self._lock:
            known = self._jobs.pop(job_id, None)
            self._points -= known.points if known else 0
            newer = known if known and known.newest > job.newest else job  # somebody else was here meanwhile
            self._jobs[job_id] = newer
            self._points += newer.points
            while self._points > self._remembered and len(self._jobs) > 1:
                self._points -= self._jobs.popitem(last=False)[1].points


def _brought_up(session: Session, job_id: str, known: _Job, newest: int) -> _Job | None:
    """With what is new; None where that voids what was there."""
    if known.newest >= newest:
        return known
    since = (Event.job_id == job_id, Event.seq > known.newest, Event.seq <= newest, Event.type.in_(VOIDING))
    if session.scalar(select(Event.seq).where(*since).limit(1)) is not None:
        return None
    curves = dict(known.curves)
    for key, more in _since(session, job_id, known.newest, newest).items():
        curve = curves.get(key)
        if curve and more.steps[0] <= curve.steps[-1]:
            return None
        curves[key] = curve.and_then(more) if curve else more
    return _Job(newest, dict(sorted(curves.items())))


def _keys(session: Session, job_id: str) -> Iterator[str]:
    """Each found from the one before: a handful of look-ups in the index where a job has a million rows."""
    key = session.scalar(select(func.min(Metric.key)).where(Metric.job_id == job_id))
    while key is not None:
        yield key
        key = session.scalar(select(func.min(Metric.key)).where(Metric.job_id == job_id, Metric.key > key))


def _whole(session: Session, job_id: str, key: str, newest: int) -> Curve:
    these = (Metric.job_id == job_id, Metric.key == key, Metric.seq <= newest)
    rows = _rows(session, select(Metric.step, Metric.value).where(*these).order_by(Metric.step))
    return _curve(rows)


def _since(session: Session, job_id: str, since: int, newest: int) -> dict[str, Curve]:
    these = (Metric.job_id == job_id, Metric.seq > since, Metric.seq <= newest)
    by_key: dict[str, list[Any]] = {}
    for key, *point in _rows(session, select(Metric.key, Metric.step, Metric.value).where(*these).order_by(Metric.seq)):
        by_key.setdefault(key, []).append(point)
    return {key: _curve(sorted(points, key=lambda point: point[0])) for key, points in by_key.items()}


def _rows(session: Session, query: Executable) -> Sequence[Any]:
    """As the driver gives them: wrapped as usual, a hundred thousand take three times as long."""
    cursor = session.connection().execute(query).cursor
    assert cursor is not None
    rows: Sequence[Any] = cursor.fetchall()
    return rows


def _curve(rows: Sequence[Any]) -> Curve:
    steps = np.fromiter((step for step, _ in rows), dtype=np.int64, count=len(rows))
    return Curve(steps, np.array([value for _, value in rows], dtype=np.float64))


def _first_of_each(stretch: Places, hits: NDArray[np.bool_]) -> Places:
    found = np.flatnonzero(hits)
    return found[np.unique(stretch[found], return_index=True)[1]]
