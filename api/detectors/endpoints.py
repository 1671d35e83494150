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
def register(here: ContextDep, caller: Submitter, response: Response, request: DetectorCreate) -> Detector:
    """Registers weights of the folder of models, or a job's last student, under a name that job specs can use."""
    detector = service.register(here, caller, request)
    response.headers["Location"] = f"/detectors/{detector.id}"
    return detector


@router.post("/upload", status_code=201, openapi_extra=upload_body.upload_schema(uploading.MEDIA_TYPES))
def upload(
    here: ContextDep,
    caller: Submitter,
    response: Response,
    wanted: Annotated[DetectorUpload, Depends(uploading.wanted)],
    upload: Annotated[Upload, upload_body.receive_upload(uploading.wanted, uploading.MEDIA_TYPES)],
) -> Detector:
    """Takes weights: a torch file that holds a `state_dict`, or a .safetensors file.

    The detector is `importing` until a worker has read the file, then `ready` or `refused`.
    """
    detector = uploading.register(here, caller, wanted, upload)
    response.headers["Location"] = f"/detectors/{detector.id}"
    return detector


@router.get("")
def list_detectors(here: ContextDep, caller: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[Detector]:
    """Newest first."""
    return service.listing(here.database, caller, limit, cursor)


@router.get("/{detector}")
def get_detector(here: ContextDep, caller: Reader, detector: IdOrName) -> Detector:
    """What it is and where its weights came from."""
    return service.find(here.database, caller, detector)


@router.delete("/{detector}", status_code=204)
def delete_detector(here: ContextDep, caller: Submitter, detector: IdOrName) -> None:
    """Forgets the detector; its weights stay, uploaded ones go. Refused while a job that refers to it has not ended."""
    uploading.release(here, service.delete(here.database, caller, detector))
