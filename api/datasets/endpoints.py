from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api import upload_body
from api.context import ContextDep
from api.datasets import service, uploading
from api.datasets.schemas import Dataset, DatasetCheck, DatasetCreate
from api.http.auth import Reader, Submitter
from api.http.pagination import Cursor, Limit
from api.http.schemas import IdOrName, Page
from api.upload_body import Upload

router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.post("", status_code=201)
def register(here: ContextDep, caller: Submitter, response: Response, request: DatasetCreate) -> Dataset:
    """Registers a COCO data set that lies in the folder of data sets, and checks every file and box of it.

    The answer waits for the check of up to 2,000 images; of larger sets it has the status `checking`.
    """
    dataset = service.register(here, caller, request)
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return dataset


@router.post("/upload", status_code=201, openapi_extra=upload_body.upload_schema(uploading.MEDIA_TYPES))
def upload(
    here: ContextDep,
    caller: Submitter,
    response: Response,
    wanted: Annotated[uploading.UploadRequest, Depends(uploading.wanted)],
    upload: Annotated[Upload, upload_body.receive_upload(uploading.wanted, uploading.MEDIA_TYPES)],
) -> Dataset:
    """Takes a data set as a .zip, .tar or .tar.gz file in COCO, Pascal VOC or YOLO layout, and checks it like any other."""
    dataset = uploading.register(here, caller, wanted, upload)
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return dataset


@router.get("")
def list_datasets(here: ContextDep, caller: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[Dataset]:
    """Newest first."""
    return service.listing(here.database, caller, limit, cursor)


@router.get("/{dataset}")
def get_dataset(here: ContextDep, caller: Reader, dataset: IdOrName) -> Dataset:
    """Its files, its counts and whether the check has passed."""
    return service.find(here.database, caller, dataset)


@router.get("/{dataset}/check")
def get_check(here: ContextDep, caller: Reader, dataset: IdOrName) -> DatasetCheck:
    """All that the check found."""
    return service.check(here.database, caller, dataset)


@router.delete("/{dataset}", status_code=204)
def delete_dataset(here: ContextDep, caller: Submitter, dataset: IdOrName) -> None:
    """Forgets the data set; its files stay, uploaded ones go. Refused while any job refers to it."""
    uploading.release(here, service.delete(here.database, caller, dataset))
