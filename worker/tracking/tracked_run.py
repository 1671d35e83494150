"""Reads the job of an attempt as a tracker's run."""

import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.db.tables import Attempt, Job
from store.jobs.lease import Lease
from worker.tracking.tracker import TrackedRun

_NO_PARAMETERS = {"name", "tags", "priority", "metadata"}
"""Fields of a spec that do not influence the result, and that may change while the job exists."""


def read_run(session: Session, lease: Lease) -> TrackedRun:
    """Return the run of the attempt's job."""
    job = session.get_one(Job, lease.job_id)
    first_attempt = _first_attempt(session, job)
    spec = {name: value for name, value in job.spec.items() if name not in _NO_PARAMETERS}
    return TrackedRun(
        id=job.id if first_attempt == 1 else f"{job.id}-{first_attempt}",
        job_id=job.id,
        attempt=lease.attempt,
        name=job.name or job.id,
        kind=job.kind,
        owner=job.owner,
        group=job.parent_id or job.id,
        tags=tuple(job.tags),
        parameters=dict(_flatten("", spec)),
    )


def _first_attempt(session: Session, job: Job) -> int:
    """Return the first attempt since the job was submitted or retried from scratch, which resets `started_at`."""
    since = (Attempt.job_id == job.id, Attempt.started_at >= job.started_at)
    return session.scalar(select(func.min(Attempt.number)).where(*since)) or job.attempt


def _flatten(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flatten(f"{path}.{name}" if path else name, item)
    elif isinstance(value, str):
        yield path, value
    elif value is not None:
        yield path, json.dumps(value)
