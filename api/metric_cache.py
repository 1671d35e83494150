"""Cache of downsampled metric curves: a repeated request reads only the points added since the last one.

Reading a long curve from the database takes too long for an interactive chart. The least recently used jobs are
evicted.
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
"""Points per cached curve; a curve grows to twice as many before it is downsampled again."""
MAX_CACHED_POINTS = 3_000_000
"""Maximum number of cached points of all jobs, 16 bytes each."""
INVALIDATING_EVENTS = ("rewound", "status", "cleaned")
"""Types of the events after which points may have been deleted: a later attempt, a retry, a clean-up."""

Steps = NDArray[np.int64]
Values = NDArray[np.float64]
"""NaN stands for a null; the database stores no NaN."""


@dataclass
class Curve:
    """One metric of a job over training steps."""

    steps: Steps
    values: Values
    count: int = 0
    """Number of points before downsampling."""

    def __post_init__(self) -> None:
        self.count = self.count or len(self.steps)

    def downsampled(self, max_points: int) -> "Curve":
        """Return the curve with at most `max_points` points."""
        indices = downsample(self.steps, self.values, max_points)
        return Curve(self.steps[indices], self.values[indices], self.count)

    def compacted(self) -> "Curve":
        """Return the curve to cache: downsampled if it has more than twice `FINE` points."""
        return self.downsampled(FINE) if len(self.steps) > 2 * FINE else self

    def extended(self, later: "Curve") -> "Curve":
        """Return the curve with later points appended."""
        steps, values = np.concatenate([self.steps, later.steps]), np.concatenate([self.values, later.values])
        return Curve(steps, values, self.count + later.count).compacted()


def downsample(steps: Steps, values: Values, max_points: int) -> Steps:
    """Return the indices of at most `max_points` points that preserve the shape of the curve.

    The first and the last point are always kept. The points between them are divided into `(max_points - 2) // 2` bins
    of equal width in steps, and the lowest and the highest value of each bin are kept.
    """
    count, bins = len(steps), (max_points - 2) // 2
    if count <= max_points:
        return np.arange(count)
    ends, inner = np.array([0, count - 1]), steps[1:-1]
    if not bins:
        return ends
    bin_of_point = (inner - inner[0]) * bins // (inner[-1] - inner[0] + 1)
    starts = np.flatnonzero(np.diff(bin_of_point, prepend=-1))
    lengths = np.diff(starts, append=len(inner))
    low, high = (np.where(np.isnan(values[1:-1]), fill, values[1:-1]) for fill in (np.inf, -np.inf))
    lowest = low == np.repeat(np.minimum.reduceat(low, starts), lengths)
    highest = high == np.repeat(np.maximum.reduceat(high, starts), lengths)
    extremes = [1 + _first_in_bins(bin_of_point, mask) for mask in (lowest, highest)]
    return np.unique(np.concatenate([ends, *extremes]))


def read_curves(session: Session, job_id: str, keys: Sequence[str] | None, since: int, newest: int) -> dict[str, Curve]:
    """Return the curves of a job, not downsampled, with the points written after sequence number `since`.

    Keys without points are absent.
    """
    if since:
        new = _read_since(session, job_id, since, newest)
        return {key: new[key] for key in (dict.fromkeys(keys) if keys else sorted(new)) if key in new}
    selected = dict.fromkeys(keys) if keys else _read_keys(session, job_id)
    curves = ((key, _read_curve(session, job_id, key, newest)) for key in selected)
    return {key: curve for key, curve in curves if curve.count}


@dataclass
class _CachedJob:
    newest: int
    curves: dict[str, Curve] = field(default_factory=dict)

    @property
    def points(self) -> int:
        return sum(len(curve.steps) for curve in self.curves.values())


class MetricCurveCache:
    """Downsampled curves of the jobs that were requested last. Thread-safe."""

    def __init__(self, max_points: int = MAX_CACHED_POINTS) -> None:
        self._max_points = max_points
        self._jobs: OrderedDict[str, _CachedJob] = OrderedDict()
        self._points = 0
        self._lock = threading.Lock()

    def get(self, session: Session, job_id: str, newest: int) -> dict[str, Curve]:
        """Return all curves of a job up to sequence number `newest`, each with at most twice `FINE` points."""
        with self._lock:
            cached = self._jobs.get(job_id)
        job = _update(session, job_id, cached, newest) if cached else None
        if job is None:
            curves = read_curves(session, job_id, None, 0, newest)
            job = _CachedJob(newest, {key: curve.compacted() for key, curve in curves.items()})
        self._store(job_id, job)
        return job.curves

    def _store(self, job_id: str, job: _CachedJob) -> None:
        with self._lock:
            cached = self._jobs.pop(job_id, None)
            self._points -= cached.points if cached else 0
            # Another request may have stored newer points meanwhile.
            newer = cached if cached and cached.newest > job.newest else job
            self._jobs[job_id] = newer
            self._points += newer.points
            while self._points > self._max_points and len(self._jobs) > 1:
                self._points -= self._jobs.popitem(last=False)[1].points


def _update(session: Session, job_id: str, cached: _CachedJob, newest: int) -> _CachedJob | None:
    """Return the job with the new points; None if the cached points are invalid and have to be read again."""
    if cached.newest >= newest:
        return cached
    invalidating = (
        Event.job_id == job_id,
        Event.seq > cached.newest,
        Event.seq <= newest,
        Event.type.in_(INVALIDATING_EVENTS),
    )
    if session.scalar(select(Event.seq).where(*invalidating).limit(1)) is not None:
        return None
    curves = dict(cached.curves)
    for key, later in _read_since(session, job_id, cached.newest, newest).items():
        curve = curves.get(key)
        if curve and later.steps[0] <= curve.steps[-1]:
            return None
        curves[key] = curve.extended(later) if curve else later
    return _CachedJob(newest, dict(sorted(curves.items())))


def _read_keys(session: Session, job_id: str) -> Iterator[str]:
    """Yield the metric keys of a job, each with one index look-up, instead of scanning up to a million rows."""
    key = session.scalar(select(func.min(Metric.key)).where(Metric.job_id == job_id))
    while key is not None:
        yield key
        key = session.scalar(select(func.min(Metric.key)).where(Metric.job_id == job_id, Metric.key > key))


def _read_curve(session: Session, job_id: str, key: str, newest: int) -> Curve:
    conditions = (Metric.job_id == job_id, Metric.key == key, Metric.seq <= newest)
    rows = _fetch_rows(session, select(Metric.step, Metric.value).where(*conditions).order_by(Metric.step))
    return _to_curve(rows)


def _read_since(session: Session, job_id: str, since: int, newest: int) -> dict[str, Curve]:
    conditions = (Metric.job_id == job_id, Metric.seq > since, Metric.seq <= newest)
    by_key: dict[str, list[Any]] = {}
    query = select(Metric.key, Metric.step, Metric.value).where(*conditions).order_by(Metric.seq)
    for key, *point in _fetch_rows(session, query):
        by_key.setdefault(key, []).append(point)
    return {key: _to_curve(sorted(points, key=lambda point: point[0])) for key, points in by_key.items()}


def _fetch_rows(session: Session, query: Executable) -> Sequence[Any]:
    """Return the rows of the database driver; wrapping 100,000 rows in SQLAlchemy objects takes three times as long."""
    cursor = session.connection().execute(query).cursor
    assert cursor is not None
    rows: Sequence[Any] = cursor.fetchall()
    return rows


def _to_curve(rows: Sequence[Any]) -> Curve:
    steps = np.fromiter((step for step, _ in rows), dtype=np.int64, count=len(rows))
    return Curve(steps, np.array([value for _, value in rows], dtype=np.float64))


def _first_in_bins(bin_of_point: Steps, mask: NDArray[np.bool_]) -> Steps:
    """Return the first index in each bin at which `mask` is true."""
    indices = np.flatnonzero(mask)
    return indices[np.unique(bin_of_point[indices], return_index=True)[1]]
