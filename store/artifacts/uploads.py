"""What clients have sent: where a data set's files lie, whether an upload is still needed, how a detector comes in.

Nothing here touches files; the functions that take a session leave the commit to their caller.
"""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import exists, or_, select
from sqlalchemy.orm import Session

from frs.events import ErrorInfo
from store.db.tables import Artifact, Checkpoint, Dataset, Detector
from store.settings import Settings
from store.states import DetectorStatus


def root_of(settings: Settings, dataset: Dataset) -> Path:
    """The folder that the data set's paths are relative to."""
    return folder_of(settings, dataset.upload_key) if dataset.upload_key else settings.datasets_root


def folder_of(settings: Settings, upload_key: str) -> Path:
    """Where the archive kept under this key was unpacked to."""
    return settings.uploads_root / Path(upload_key).name.partition(".")[0]


def archive_key(sha256: str, val_fraction: float | None, suffix: str) -> str:
    """Where the archive of a data set goes in the artifacts; it says all that its conversion depends on."""
    return f"uploads/{sha256}{f'-val{round(100 * val_fraction)}' if val_fraction else ''}{suffix}"


def parse_archive_key(archive_key: str) -> tuple[str, float | None]:
    """The archive's SHA-256, and the share of its training images set aside for validation."""
    sha256, _, percent = Path(archive_key).name.partition(".")[0].partition("-val")
    return sha256, int(percent) / 100 if percent else None


def weights_key(detector_id: str, sha256: str) -> str:
    """Where the imported weights of an uploaded detector go in the artifacts."""
    return f"{detector_id}/{sha256[:12]}.safetensors"


def is_referenced(session: Session, key: str) -> bool:
    """Whether a row needs the artifact `key`."""
    weights = exists().where(Detector.weights_key == key, Detector.status != DetectorStatus.REFUSED)
    others = (exists().where(column == key) for column in (Dataset.upload_key, Checkpoint.key, Artifact.key))
    return session.scalar(select(or_(weights, *others))) or False


def accept_import(
    session: Session, detector_id: str, key: str, sha256: str, classes: Sequence[str] | None
) -> list[str]:
    """The detector is ready: its weights are the artifact `key`. Classes that the file does not name stay as told.

    Returns the keys that nobody needs any more, to delete after the commit: the upload's, or `key` itself where the
    detector was deleted meanwhile.
    """
    detector = _importing(session, detector_id)
    if detector is None:
        return _unused(session, key)
    upload_key = str(detector.weights_key)
    detector.status, detector.weights_key, detector.sha256 = DetectorStatus.READY, key, sha256
    detector.classes = list(classes) if classes else detector.classes
    session.flush()
    return _unused(session, upload_key)


def refuse_import(session: Session, detector_id: str, problem: ErrorInfo) -> list[str]:
    """The detector stays, to say why. Returns the keys to delete after the commit."""
    detector = _importing(session, detector_id)
    if detector is None:
        return []
    detector.status, detector.error = DetectorStatus.REFUSED, problem.model_dump()
    session.flush()
    return _unused(session, str(detector.weights_key))


def _importing(session: Session, detector_id: str) -> Detector | None:
    this_one = select(Detector).where(Detector.id == detector_id, Detector.status == DetectorStatus.IMPORTING)
    return session.scalar(this_one.with_for_update(), execution_options={"populate_existing": True})


def _unused(session: Session, key: str) -> list[str]:
    return [] if is_referenced(session, key) else [key]
