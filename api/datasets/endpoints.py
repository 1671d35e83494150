"""Endpoints of data sets."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response

from api import upload_body
from api.context import ContextDep
from api.datasets import images, service, uploading
from api.datasets.schemas import Dataset, DatasetCheck, DatasetCreate, DatasetImage, SplitName
from api.http.auth import Own, Reader, Submitter
from api.http.files import BINARY
from api.http.pagination import Cursor, Limit
from api.http.schemas import IdOrName, Page
from api.upload_body import Upload

router = APIRouter(prefix="/datasets", tags=["datasets"])
_IMAGE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            name: {"schema": {"type": "string", "format": "binary"}} for name in {*images.MEDIA_TYPES.values(), BINARY}
        }
    }
}
Split = Annotated[SplitName, Query(description="Split of the data set.")]


@router.post("", status_code=201)
def register(context: ContextDep, caller: Submitter, response: Response, request: DatasetCreate) -> Dataset:
    """Register a COCO data set in the service's folder of data sets, and check all of its files and boxes.

    Data sets of up to 2,000 images are checked before the response. Larger ones have the status `checking` at first;
    poll `GET /datasets/{id}`. A data set of this name that has issues and that no job uses is replaced.
    """
    splits = service.resolve_splits(context, request)
    uploading.free_name(context, caller, request.name)
    dataset = service.register(context, caller, request.name, *splits)
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return dataset


@router.post("/upload", status_code=201, openapi_extra=upload_body.upload_schema(uploading.MEDIA_TYPES))
def upload(
    context: ContextDep,
    caller: Submitter,
    response: Response,
    upload_request: Annotated[uploading.UploadRequest, Depends(uploading.check_request)],
    upload: Annotated[Upload, upload_body.receive_upload(uploading.check_request, uploading.MEDIA_TYPES)],
) -> Dataset:
    """Upload a data set as a .zip, .tar or .tar.gz file in COCO, Pascal VOC or YOLO layout, and check it.

    The check is the same as that of `POST /datasets`. A data set of this name that has issues and that no job uses is
    replaced.
    """
    dataset = uploading.register(context, caller, upload_request, upload)
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return dataset


@router.get("")
def list_datasets(
    context: ContextDep, caller: Reader, limit: Limit = 50, cursor: Cursor = None, own: Own = False
) -> Page[Dataset]:
    """List data sets, newest first."""
    return service.list_datasets(context.database, caller, limit, cursor, own=own)


@router.get("/{dataset}")
def get_dataset(context: ContextDep, caller: Reader, dataset: IdOrName) -> Dataset:
    """Return a data set: its files, counts, classes, and the status of its check."""
    return service.get_dataset(context.database, caller, dataset)


@router.get("/{dataset}/check")
def get_check(context: ContextDep, caller: Reader, dataset: IdOrName) -> DatasetCheck:
    """Return the complete result of the data set's check."""
    return service.get_check(context.database, caller, dataset)


@router.get("/{dataset}/images")
def list_images(
    context: ContextDep,
    caller: Reader,
    dataset: IdOrName,
    split: Split = "val",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[DatasetImage]:
    """List the images of a split with their boxes, in the order of the annotation file.

    Fails with status 409 for annotation files above 64 MiB.
    """
    return images.list_images(context, caller, dataset, split, limit, cursor)


@router.get("/{dataset}/images/{image_id}/content", response_class=Response, responses=_IMAGE_RESPONSES)
def get_image(
    context: ContextDep,
    caller: Reader,
    dataset: IdOrName,
    image_id: Annotated[int, Path(gt=-(2**53), lt=2**53)],
    split: Split = "val",
) -> Response:
    """Return the file of an image."""
    return images.image_file(context, caller, dataset, split, image_id)


@router.delete("/{dataset}", status_code=204)
def delete_dataset(context: ContextDep, caller: Submitter, dataset: IdOrName) -> None:
    """Remove a data set.

    Uploaded files are deleted; files in the folder of data sets are kept. Fails with status 409 while a job refers to
    the data set.
    """
    uploading.release(context, service.delete(context.database, caller, dataset))
