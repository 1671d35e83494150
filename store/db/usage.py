"""Disk usage by owner and kind of file, as recorded in the database."""

from enum import StrEnum

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.db.tables import Artifact, Checkpoint, Dataset, Detector, Job


class FileKind(StrEnum):
    """Kind of stored files."""

    CHECKPOINTS = "checkpoints"
    """Training checkpoints and students."""
    ARTIFACTS = "artifacts"
    """Reports, pictures and other deliverables of jobs."""
    DATASETS = "datasets"
    """Uploaded data sets: archives and unpacked files."""
    DETECTORS = "detectors"
    """Uploaded weights."""


def stored_bytes(session: Session, owner: str | None = None) -> dict[str, dict[FileKind, int]]:
    """Return the bytes by owner and kind; of one owner only if given. Owners without files are omitted.

    An archive that two owners have uploaded counts for both.
    """
    queries = {
        FileKind.CHECKPOINTS: select(Job.owner, func.sum(Checkpoint.bytes)).where(Checkpoint.job_id == Job.id),
        FileKind.ARTIFACTS: select(Job.owner, func.sum(Artifact.bytes)).where(Artifact.job_id == Job.id),
        FileKind.DATASETS: select(Dataset.owner, func.sum(Dataset.bytes)),
        FileKind.DETECTORS: select(Detector.owner, func.sum(Detector.bytes)),
    }
    usage: dict[str, dict[FileKind, int]] = {}
    for kind, query in queries.items():
        owner_column = query.selected_columns[0]
        if owner is not None:
            query = query.where(owner_column == owner)
        for row_owner, size in session.execute(query.group_by(owner_column)):
            if size:
                usage.setdefault(row_owner, dict.fromkeys(FileKind, 0))[kind] = int(size)
    return usage


def total_bytes(session: Session, owner: str) -> int:
    """Return the bytes of all files of an owner."""
    return sum(stored_bytes(session, owner).get(owner, {}).values())
