"""Endpoints of checkpoints."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from api.checkpoints import service
from api.checkpoints.schemas import Checkpoint
from api.context import ContextDep
from api.http import files
from api.http.auth import Reader
from api.http.schemas import CheckpointId

router = APIRouter(prefix="/checkpoints", tags=["checkpoints"])


@router.get("/{checkpoint_id}")
def get_checkpoint(context: ContextDep, caller: Reader, checkpoint_id: CheckpointId) -> Checkpoint:
    """Return the metadata of a checkpoint."""
    return service.get_checkpoint(context.database, caller, checkpoint_id)


@router.get(
    "/{checkpoint_id}/content",
    response_class=StreamingResponse,
    responses=files.range_responses(files.BINARY),
    dependencies=[files.RANGE_HEADERS],
)
def get_content(context: ContextDep, caller: Reader, request: Request, checkpoint_id: CheckpointId) -> Response:
    """Download the file of a checkpoint, completely or in part with `Range`. The ETag is its SHA-256."""
    checkpoint, filename = service.get_file(context.database, caller, checkpoint_id)
    return files.file_response(request, context.artifacts, checkpoint, filename=filename)
