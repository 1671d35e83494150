"""What becomes of an uploaded detector once a worker has read it. The commit is the caller's."""

from collections.abc import Sequence

from sqlalchemy import update
from sqlalchemy.orm import Session

from frs.events import Problem
from store.states import DetectorStatus
from store.tables import Detector


def weights_key(detector_id: str, sha256: str) -> str:
    """Where its imported weights go in the artifacts."""
    return f"{detector_id}/{sha256[:12]}.safetensors"


def accept_import(session: Session, detector_id: str, key: str, sha256: str, classes: Sequence[str] | None) -> None:
    """It is ready, with these weights. Classes that its owner named stay; one deleted meanwhile stays deleted."""
    values = {"status": DetectorStatus.READY, "weights_key": key, "sha256": sha256, "error": None}
    session.execute(update(Detector).where(Detector.id == detector_id).values(values))
    if classes:
        unnamed = (Detector.id == detector_id, Detector.classes.is_(None))
        session.execute(update(Detector).where(*unnamed).values(classes=list(classes)))


def refuse_import(session: Session, detector_id: str, problem: Problem) -> None:
    refused = {"status": DetectorStatus.REFUSED, "error": problem.model_dump()}
    session.execute(update(Detector).where(Detector.id == detector_id).values(refused))
