"""Uploads: folders and keys of uploaded files, whether they are still referenced, the end of a detector's import.

No function accesses files. Those that take a session leave the commit to their caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import exists, or_, select
from sqlalchemy.orm import Session

from frs.events import ErrorInfo
from store.db.tables import Artifact, Checkpoint, Dataset, Detector
from store.settings import Settings
from store.states import DetectorStatus

_CONVERTED = "datasets/"
"""Prefix of the keys of archives of converted data sets."""


def dataset_root(settings: Settings, dataset: Dataset) -> Path:
    """Return the folder that the data set's paths are relative to."""
    return unpacked_folder(settings, dataset.upload_key) if dataset.upload_key else settings.datasets_root


def unpacked_folder(settings: Settings, upload_key: str) -> Path:
    """Return the folder that the archive with this key is unpacked into."""
    return settings.uploads_root / Path(upload_key).name.partition(".")[0]


def archive_key(sha256: str) -> str:
    """Return the artifact key of the archive of a converted data set."""
    return f"{_CONVERTED}{sha256}.tar"


@dataclass(frozen=True)
class ArchiveKey:
    """What the artifact key of a data set's archive says."""

    sha256: str
    """SHA-256 of the archive, lower-case hex."""
    is_converted: bool
    """Whether the data set was converted before it was archived; up to version 0.2, archives were kept as uploaded."""
    val_fraction: float | None
    """Fraction of the training images to split off for validation, in the conversion of an archive as uploaded."""

    @classmethod
    def parse(cls, key: str) -> Self:
        """Return what a key says, also that of an earlier version."""
        sha256, _, percent = Path(key).name.partition(".")[0].partition("-val")
        return cls(sha256, key.startswith(_CONVERTED), int(percent) / 100 if percent else None)


def weights_key(detector_id: str, sha256: str) -> str:
    """Return the artifact key of the imported weights of an uploaded detector."""
    return f"{detector_id}/{sha256[:12]}.safetensors"


def is_referenced(session: Session, key: str) -> bool:
    """Return whether a row refers to the artifact `key`; refused detectors do not count."""
    weights = exists().where(Detector.weights_key == key, Detector.status != DetectorStatus.REFUSED)
    others = (exists().where(column == key) for column in (Dataset.upload_key, Checkpoint.key, Artifact.key))
    return session.scalar(select(or_(weights, *others))) or False


def accept_import(
    session: Session, detector_id: str, key: str, sha256: str, size: int, classes: Sequence[str] | None
) -> list[str]:
    """Mark the detector as ready, with the artifact `key` of `size` bytes as its weights.

    Without `classes` from the file, the classes given at the upload remain. Returns the keys that are no longer
    referenced, which the caller deletes after the commit: the upload's, or `key` itself if the detector was deleted
    meanwhile.
    """
    detector = _importing(session, detector_id)
    if detector is None:
        return _unused(session, key)
    upload_key = str(detector.weights_key)
    detector.status, detector.error = DetectorStatus.READY, None
    detector.weights_key, detector.sha256, detector.bytes = key, sha256, size
    detector.classes = list(classes) if classes else detector.classes
    session.flush()
    return _unused(session, upload_key)


def postpone_import(session: Session, detector_id: str, error: ErrorInfo) -> None:
    """Store why the import of the detector has to wait."""
    detector = _importing(session, detector_id)
    if detector is not None:
        detector.error = error.model_dump()


def refuse_import(session: Session, detector_id: str, error: ErrorInfo) -> list[str]:
    """Mark the detector as refused, with the error; return the keys that the caller deletes after the commit."""
    detector = _importing(session, detector_id)
    if detector is None:
        return []
    detector.status, detector.error = DetectorStatus.REFUSED, error.model_dump()
    session.flush()
    return _unused(session, str(detector.weights_key))


def _importing(session: Session, detector_id: str) -> Detector | None:
    query = select(Detector).where(Detector.id == detector_id, Detector.status == DetectorStatus.IMPORTING)
    return session.scalar(query.with_for_update(), execution_options={"populate_existing": True})


def _unused(session: Session, key: str) -> list[str]:
    return [] if is_referenced(session, key) else [key]
