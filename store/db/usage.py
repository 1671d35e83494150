"""Disk usage by owner and kind of file, as recorded in the database."""

from enum import StrEnum

from sqlalchemy import Select, bindparam, exists, func, select, union_all
from sqlalchemy.orm import Session

from store.db.tables import Artifact, Checkpoint, Dataset, Detector, Job
from store.states import DetectorStatus


class FileKind(StrEnum):
    """Kind of stored files."""

    CHECKPOINTS = "checkpoints"
    """Training checkpoints and students."""
    ARTIFACTS = "artifacts"
    """Reports, pictures and other deliverables of jobs."""
    DATASETS = "datasets"
    """Uploaded data sets: archives and unpacked files."""
    DETECTORS = "detectors"
    """Uploaded weights, and registered students of deleted jobs."""


def _sizes() -> dict[FileKind, Select[str, int | None]]:
    """Return the query of the owners and sizes of all files, by kind."""
    return {
        FileKind.CHECKPOINTS: select(Job.owner, Checkpoint.bytes).where(Checkpoint.job_id == Job.id),
        FileKind.ARTIFACTS: select(Job.owner, Artifact.bytes).where(Artifact.job_id == Job.id),
        FileKind.DATASETS: select(Dataset.owner, Dataset.bytes),
        FileKind.DETECTORS: select(Detector.owner, Detector.bytes).where(
            Detector.status != DetectorStatus.REFUSED,  # whose weights are deleted
            ~exists().where(Checkpoint.job_id == Detector.job_id, Checkpoint.key == Detector.weights_key),
        ),
    }


def _total_query() -> Select[int]:
    sizes = union_all(*(query.where(query.selected_columns[0] == bindparam("owner")) for query in _sizes().values()))
    return select(func.coalesce(func.sum(sizes.subquery().c.bytes), 0))


_TOTAL = _total_query()
"""Built once, because building the query takes longer than running it."""


def stored_bytes(session: Session, owner: str | None = None) -> dict[str, dict[FileKind, int]]:
    """Return the bytes by owner and kind; of one owner only if given. Owners without files are omitted.

    An archive that two owners have uploaded counts for both.
    """
    usage: dict[str, dict[FileKind, int]] = {}
    for kind, sizes in _sizes().items():
        owner_column, bytes_column = sizes.selected_columns
        query = sizes.with_only_columns(owner_column, func.sum(bytes_column)).group_by(owner_column)
        if owner is not None:
            query = query.where(owner_column == owner)
        for row_owner, size in session.execute(query):
            if size:
                usage.setdefault(row_owner, dict.fromkeys(FileKind, 0))[kind] = int(size)
    return usage


def total_bytes(session: Session, owner: str) -> int:
    """Return the bytes of all files of an owner."""
    return int(session.scalars(_TOTAL, {"owner": owner}).one())
