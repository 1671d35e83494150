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
def get_checkpoint(here: ContextDep, caller: Reader, checkpoint_id: CheckpointId) -> Checkpoint:
    """What it is, and which job wrote it when."""
    return service.find(here.database, caller, checkpoint_id)


@router.get(
    "/{checkpoint_id}/content",
    response_class=StreamingResponse,
    responses=files.range_responses(files.BINARY),
    dependencies=[files.RANGE_HEADERS],
)
def get_content(here: ContextDep, caller: Reader, request: Request, checkpoint_id: CheckpointId) -> Response:
    """The file, whole or by `Range`; the ETag is its sha256."""
    checkpoint, filename = service.content(here.database, caller, checkpoint_id)
    return files.file_response(request, here.artifacts, checkpoint, filename=filename)
