"""Retention: which ended jobs can be removed, and the removal of their files and metrics.

`POST /clean` applies it on request, workers by the settings `keep_jobs_days` and others.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from sqlalchemy import Row, delete, exists, func, or_, select, true
from sqlalchemy.orm import Session

from store.artifacts import storage
from store.artifacts.storage import Artifacts
from store.db import audit
from store.db.audit import Actor
from store.db.database import Database, time_of
from store.db.tables import Artifact, Checkpoint, Job, Metric
from store.errors import JobInUse
from store.jobs import actions
from store.jobs.lease import lock_jobs
from store.jobs.transitions import add_event

GroupMember = Row[str, str | None, str, float | None, list[str], bool]
"""Id, parent id, owner, end and tags of a job, and whether there is something to remove."""


class Content(StrEnum):
    """What is removed of a job."""

    JOBS = "jobs"
    """The job with everything that belongs to it, as `DELETE /jobs/{id}` does."""
    CHECKPOINTS = "checkpoints"
    """Training checkpoints of failed and cancelled jobs: a job that is resumed later starts again. Students stay."""
    METRICS = "metrics"
    """Metric curves. Evaluations and reports stay."""


@dataclass(frozen=True)
class RetentionRules:
    """Which run groups are kept. A run group is kept as a whole."""

    older_than_seconds: float
    """A run group is kept if one of its jobs has not ended, or ended more recently than this."""
    keep_last: int = 0
    """The newest run groups of each owner that are kept in any case."""
    keep_tag: str = "keep"
    """A run group is kept if one of its jobs has this tag."""


@dataclass
class Removed:
    """What was removed."""

    job_ids: list[str] = field(default_factory=list)
    checkpoints: int = 0
    metrics: int = 0
    """Number of metric values."""
    bytes: int = 0
    """Size of the removed files."""
    keys: list[str] = field(default_factory=list)
    """Artifact keys of the removed files."""


def expired_groups(
    session: Session, rules: RetentionRules, contents: Collection[Content], owner: str | None = None
) -> list[str]:
    """Return the ids of the first job of each run group that has such contents and that the rules do not keep.

    They are in the order of the ids. `owner` None: of all owners.
    """
    at = time_of(session)
    groups = _run_groups(session, contents, owner)
    is_kept_by_rank: set[str] = set()
    for ids in _newest_first_by_owner(groups).values():
        is_kept_by_rank.update(ids[: rules.keep_last])
    return sorted(
        id
        for id, jobs in groups.items()
        if id not in is_kept_by_rank and _has_expired(jobs, rules, at) and any(job.has_contents for job in jobs)
    )


def clean_group(
    database: Database,
    artifacts: Artifacts,
    job_id: str,
    contents: Collection[Content],
    rules: RetentionRules,
    actor: Actor,
    dry_run: bool = False,
) -> Removed | None:
    """Remove contents of the run group of this job, with their files.

    Returns None if another job needs the group, or if the rules keep it by now, for example because a job of it was
    resumed or tagged. A dry run does the same in the database and rolls it back, so that its report is exact.
    """
    with database.write() as session:
        jobs = lock_jobs(session, or_(Job.id == job_id, Job.parent_id == job_id))
        if not jobs or not _has_expired(jobs, rules, time_of(session)):
            return None
        try:
            removed = _remove(session, job_id, jobs, contents, actor)
        except JobInUse:
            return None
        if dry_run:
            session.rollback()
            return removed
        if removed.checkpoints or removed.metrics:
            audit.record(session, actor, "job.clean", [job_id], contents=[*map(str, contents)])
        session.commit()
    storage.delete_files(artifacts, *removed.keys)
    return removed


def _has_expired(jobs: Sequence[GroupMember] | Sequence[Job], rules: RetentionRules, at: float) -> bool:
    """Return whether the age and the tags of a run group keep it no longer at this time."""
    before = at - rules.older_than_seconds
    return all(
        job.finished_at is not None and job.finished_at < before and rules.keep_tag not in job.tags for job in jobs
    )


def _remove(session: Session, job_id: str, jobs: Sequence[Job], contents: Collection[Content], actor: Actor) -> Removed:
    """Remove the rows of the contents of a locked run group. Raises JobInUse if it cannot be deleted."""
    ids = [job.id for job in jobs]
    if Content.JOBS in contents:
        sizes = (select(func.sum(table.bytes)).where(table.job_id.in_(ids)) for table in (Checkpoint, Artifact))
        size = sum(session.scalar(query) or 0 for query in sizes)
        return Removed(ids, bytes=int(size), keys=actions.delete(session, job_id, actor))
    removed = Removed()
    if Content.CHECKPOINTS in contents:
        _remove_checkpoints(session, ids, removed)
    if Content.METRICS in contents:
        removed.metrics = session.scalar(select(func.count()).where(Metric.job_id.in_(ids))) or 0
        session.execute(delete(Metric).where(Metric.job_id.in_(ids)))
    if removed.checkpoints or removed.metrics:
        for job in jobs:  # the event also invalidates cached metrics
            add_event(session, job, "cleaned", {"contents": sorted(contents), "by": actor.owner})
    return removed


def _run_groups(session: Session, contents: Collection[Content], owner: str | None) -> dict[str, list[GroupMember]]:
    """Return the jobs of each run group by the id of its first job, oldest group first."""
    has_checkpoints = exists().where(Checkpoint.job_id == Job.id, Checkpoint.kind == "training")
    has_contents = {
        Content.JOBS: true(),
        Content.CHECKPOINTS: has_checkpoints,
        Content.METRICS: exists().where(Metric.job_id == Job.id),
    }
    is_affected = or_(*(has_contents[content] for content in contents)).label("has_contents")
    query = select(Job.id, Job.parent_id, Job.owner, Job.finished_at, Job.tags, is_affected)
    query = query.order_by(Job.created_at, Job.id)
    groups: dict[str, list[GroupMember]] = defaultdict(list)
    for job in session.execute(query if owner is None else query.where(Job.owner == owner)):
        groups[job.parent_id or job.id].append(job)
    return groups


def _newest_first_by_owner(groups: dict[str, list[GroupMember]]) -> dict[str, Sequence[str]]:
    by_owner: dict[str, list[str]] = defaultdict(list)
    for id, jobs in reversed(groups.items()):
        by_owner[jobs[0].owner].append(id)
    return {**by_owner}


def _remove_checkpoints(session: Session, ids: Sequence[str], removed: Removed) -> None:
    deletion = delete(Checkpoint).where(Checkpoint.kind == "training", Checkpoint.job_id.in_(ids))
    rows = session.execute(deletion.returning(Checkpoint.key, Checkpoint.bytes)).all()
    removed.checkpoints, removed.bytes = len(rows), sum(row.bytes for row in rows)
    removed.keys += [row.key for row in rows]
