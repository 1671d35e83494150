from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sqlalchemy.orm import Session

from api.checkpoints.schemas import Checkpoint
from api.context import Context
from api.problems import NotFound
from store import tables
from store.database import Database


@dataclass(frozen=True)
class Content:
    path: Path
    sha256: str
    filename: str


def find(database: Database, checkpoint_id: str) -> Checkpoint:
    with database.read() as session:
        return Checkpoint.model_validate(_row(session, checkpoint_id))


def content(context: Context, checkpoint_id: str) -> Content:
    """Raises NotFound, or ArtifactNotFound where it was pruned meanwhile."""
    with context.database.read() as session:
        checkpoint = _row(session, checkpoint_id)
        job = session.get_one(tables.Job, checkpoint.job_id)
    filename = f"{job.name or job.id}-{checkpoint.sha256[:8]}{PurePosixPath(checkpoint.key).suffix}"
    return Content(context.artifacts.path(checkpoint.key), checkpoint.sha256, filename)


def _row(session: Session, checkpoint_id: str) -> tables.Checkpoint:
    checkpoint = session.get(tables.Checkpoint, checkpoint_id)
    if checkpoint is None:
        raise NotFound("checkpoint_not_found", "No such checkpoint.", "See GET /jobs/{id}/checkpoints.")
    return checkpoint
