"""The training checkpoints of a job: which one a new attempt resumes from, and which ones are deleted."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.db import tables
from store.jobs.lease import Lease, lock_attempt


def newest_checkpoints(session: Session, job_id: str) -> list[tables.Checkpoint]:
    """Return the job's training checkpoints, newest first.

    A checkpoint of a later attempt is newer than those of earlier attempts, whatever its step.
    """
    training = (tables.Checkpoint.job_id == job_id, tables.Checkpoint.kind == "training")
    newest_first = (tables.Checkpoint.attempt.desc(), tables.Checkpoint.step.desc())
    return list(session.scalars(select(tables.Checkpoint).where(*training).order_by(*newest_first)))


def prune_checkpoints(session: Session, lease: Lease, keep: int = 2) -> list[str]:
    """Delete all but the `keep` newest training checkpoints, and the students without a label.

    Returns the artifact keys of their files, which the caller deletes after the commit.
    """
    job = lock_attempt(session, lease)
    students = select(tables.Checkpoint).where(tables.Checkpoint.job_id == job.id, tables.Checkpoint.kind == "student")
    superseded = [student for student in session.scalars(students) if not student.labels]
    rows = newest_checkpoints(session, job.id)[keep:] + superseded
    for row in rows:
        session.delete(row)
    session.flush()
    return [row.key for row in rows]
