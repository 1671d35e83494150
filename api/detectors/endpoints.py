"""Endpoints of detectors."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api import upload_body
from api.context import ContextDep
from api.detectors import service, uploading
from api.detectors.schemas import Detector, DetectorCreate, DetectorUpload
from api.http.auth import Reader, Submitter
from api.http.pagination import Cursor, Limit
from api.http.schemas import IdOrName, Page
from api.upload_body import Upload

router = APIRouter(prefix="/detectors", tags=["detectors"])


@router.post("", status_code=201)
def register(context: ContextDep, caller: Submitter, response: Response, request: DetectorCreate) -> Detector:
    """Register weights in the service's folder of models, or the last student of a job, for use in job specs."""
    detector = service.register(context, caller, request)
    response.headers["Location"] = f"/detectors/{detector.id}"
    return detector


@router.post("/upload", status_code=201, openapi_extra=upload_body.upload_schema(uploading.MEDIA_TYPES))
def upload(
    context: ContextDep,
    caller: Submitter,
    response: Response,
    upload_request: Annotated[DetectorUpload, Depends(uploading.check_request)],
    upload: Annotated[Upload, upload_body.receive_upload(uploading.check_request, uploading.MEDIA_TYPES)],
) -> Detector:
    """Upload weights: a torch file with a `state_dict`, or a .safetensors file.

    The detector has the status `importing` until a worker has read the file, then `ready` or `refused`.
    """
    detector = uploading.register(context, caller, upload_request, upload)
    response.headers["Location"] = f"/detectors/{detector.id}"
    return detector


@router.get("")
def list_detectors(context: ContextDep, caller: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[Detector]:
    """List detectors, newest first."""
    return service.list_detectors(context.database, caller, limit, cursor)


@router.get("/{detector}")
def get_detector(context: ContextDep, caller: Reader, detector: IdOrName) -> Detector:
    """Return a detector: its description, classes, and the origin of its weights."""
    return service.get_detector(context.database, caller, detector)


@router.delete("/{detector}", status_code=204)
def delete_detector(context: ContextDep, caller: Submitter, detector: IdOrName) -> None:
    """Remove a detector.

    Uploaded weights are deleted; files in the folder of models are kept. Fails with status 409 while a job that refers
    to the detector has not ended.
    """
    uploading.release(context, service.delete(context.database, caller, detector))
