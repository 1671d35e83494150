from fastapi import APIRouter, Response

from api.caller import Reader, Submitter
from api.context import Here
from api.detectors import service
from api.detectors.schemas import Detector, DetectorCreate
from api.paging import Cursor, Limit
from api.schemas import IdOrName, Page

router = APIRouter(prefix="/detectors", tags=["detectors"])


@router.post("", status_code=201)
def register(here: Here, caller: Submitter, response: Response, request: DetectorCreate) -> Detector:
    """Registers weights of the folder of models, or a job's last student, under a name that job specs can use."""
    detector = service.register(here, caller, request)
    response.headers["Location"] = f"/detectors/{detector.id}"
    return detector


@router.get("")
def list_detectors(here: Here, caller: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[Detector]:
    """Newest first."""
    return service.listing(here.database, caller, limit, cursor)


@router.get("/{detector}")
def get_detector(here: Here, caller: Reader, detector: IdOrName) -> Detector:
    """What it is and where its weights came from."""
    return service.find(here.database, caller, detector)


@router.delete("/{detector}", status_code=204)
def delete_detector(here: Here, caller: Submitter, detector: IdOrName) -> None:
    """Forgets the detector; its weights stay. Refused while a job that refers to it has not ended."""
    service.delete(here.database, caller, detector)
