"""Estimate of when the queue is empty, if no more jobs are submitted."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.db.database import time_of
from store.db.tables import Job
from store.scheduling import worker_registry
from store.states import JobStatus

_RECENT_JOBS = 200
"""Number of the newest succeeded jobs whose durations count."""
_MAX_YEARS = 10
"""A longer estimate is of no use, and may lie after the year 9999, the last one of a timestamp."""


@dataclass(frozen=True)
class QueueEstimate:
    """When the queue is empty, or why that cannot be estimated."""

    empty_at: float | None
    """Seconds since 1970 UTC."""
    reason: str | None
    """Why `empty_at` is None, or which jobs it leaves out."""


def estimate_empty(session: Session) -> QueueEstimate:
    """Estimate when all queued and running jobs have ended.

    The work is divided evenly among the slots of the workers: the time that running jobs have left by their progress,
    and for each other job the median duration of recently succeeded jobs of its kind. Jobs of a kind without any
    are left out. Failures, waiting reasons and numbers of GPUs are ignored.
    """
    running = (Job.kind, Job.progress["eta_seconds"].as_float())
    etas = session.execute(select(*running).where(Job.status == JobStatus.RUNNING)).all()
    remaining = [seconds for _, seconds in etas if seconds is not None]
    others = _number_queued(session) + Counter(kind for kind, seconds in etas if seconds is None)
    at = time_of(session)
    if not remaining and not others:
        return QueueEstimate(at, None)
    slots = sum(worker.concurrency for worker in worker_registry.alive(session) if not worker.draining)
    if not slots:
        return QueueEstimate(None, "No worker that claims jobs is running.")
    durations = _median_durations(session) if others else {}
    unknown = sorted(others.keys() - durations.keys())
    reason = _describe_unknown(unknown) if unknown else None
    if not remaining and len(unknown) == len(others):
        return QueueEstimate(None, reason)
    work = sum(remaining) + sum(others[kind] * durations[kind] for kind in others.keys() - unknown)
    seconds = max([work / slots, *remaining])
    if seconds > _MAX_YEARS * 365 * 86_400:
        return QueueEstimate(None, f"The jobs would take more than {_MAX_YEARS} years.")
    return QueueEstimate(at + seconds, reason)


def _describe_unknown(kinds: Sequence[str]) -> str:
    return f"No job of kind {' or '.join(f'`{kind}`' for kind in kinds)} has succeeded recently."


def _number_queued(session: Session) -> Counter[str]:
    """Return the number of queued jobs by kind."""
    query = select(Job.kind, func.count()).where(Job.status == JobStatus.QUEUED).group_by(Job.kind)
    return Counter(dict(row._tuple() for row in session.execute(query)))


def _median_durations(session: Session) -> dict[str, float]:
    """Return the median duration of recently succeeded jobs in seconds, by kind."""
    durations: dict[str, list[float]] = defaultdict(list)
    succeeded = select(Job.kind, Job.finished_at - Job.started_at).where(Job.status == JobStatus.SUCCEEDED)
    for kind, seconds in session.execute(succeeded.order_by(Job.finished_at.desc()).limit(_RECENT_JOBS)):
        if seconds is not None:
            durations[kind].append(seconds)
    return {kind: median(seconds) for kind, seconds in durations.items()}
