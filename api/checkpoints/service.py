"""Read checkpoints and their file names."""

from pathlib import PurePosixPath

from sqlalchemy.orm import Session

from api.checkpoints.schemas import Checkpoint
from api.http.auth import Caller
from api.http.errors import NotFoundError
from store.db import tables
from store.db.database import Database


def get_checkpoint(database: Database, caller: Caller, checkpoint_id: str) -> Checkpoint:
    """Return the metadata of a checkpoint. Raises NotFoundError."""
    with database.read() as session:
        return Checkpoint.model_validate(_get_rows(session, caller, checkpoint_id)[0])


def get_file(database: Database, caller: Caller, checkpoint_id: str) -> tuple[tables.Checkpoint, str]:
    """Return the row of a checkpoint and the file name for its download. Raises NotFoundError."""
    with database.read() as session:
        checkpoint, job = _get_rows(session, caller, checkpoint_id)
    return checkpoint, f"{job.name or job.id}-{checkpoint.sha256[:8]}{PurePosixPath(checkpoint.key).suffix}"


def _get_rows(session: Session, caller: Caller, checkpoint_id: str) -> tuple[tables.Checkpoint, tables.Job]:
    """Return the rows of a checkpoint and of its job, which determines the owner. Raises NotFoundError."""
    checkpoint = session.get(tables.Checkpoint, checkpoint_id)
    job = caller.find_job(session, checkpoint.job_id) if checkpoint else None
    if checkpoint is None or job is None:
        hint = "The job's list of checkpoints has their ids."
        raise NotFoundError("checkpoint_not_found", "There is no checkpoint of this id.", hint)
    return checkpoint, job
