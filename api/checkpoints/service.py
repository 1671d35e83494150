from pathlib import PurePosixPath

from sqlalchemy.orm import Session

from api.checkpoints.schemas import Checkpoint
from api.http.auth import Caller
from api.http.errors import NotFoundError
from store.db import tables
from store.db.database import Database


def find(database: Database, caller: Caller, checkpoint_id: str) -> Checkpoint:
    with database.read() as session:
        return Checkpoint.model_validate(_row(session, caller, checkpoint_id)[0])


def content(database: Database, caller: Caller, checkpoint_id: str) -> tuple[tables.Checkpoint, str]:
    """And the name to save it under. Raises NotFoundError."""
    with database.read() as session:
        checkpoint, job = _row(session, caller, checkpoint_id)
    return checkpoint, f"{job.name or job.id}-{checkpoint.sha256[:8]}{PurePosixPath(checkpoint.key).suffix}"


def _row(session: Session, caller: Caller, checkpoint_id: str) -> tuple[tables.Checkpoint, tables.Job]:
    """With its job, which says whose it is."""
    checkpoint = session.get(tables.Checkpoint, checkpoint_id)
    job = caller.job(session, checkpoint.job_id) if checkpoint else None
    if checkpoint is None or job is None:
        raise NotFoundError("checkpoint_not_found", "No such checkpoint.", "See GET /jobs/{id}/checkpoints.")
    return checkpoint, job
