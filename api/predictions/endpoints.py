"""Endpoints that run exported students on an image."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from api import upload_body
from api.context import ContextDep
from api.http.auth import Submitter
from api.http.schemas import IdOrName, JobId
from api.predictions import service
from api.predictions.schemas import Compared, Prediction
from api.predictions.service import ExportedFile
from api.upload_body import Upload
from frs.spec import ExportFormat

router = APIRouter(tags=["predictions"])
MEDIA_TYPES = ("image/jpeg", "image/png", "image/bmp", "image/webp")
MAX_BYTES = 20_000_000
Threshold = Annotated[float, Query(ge=0, le=1, description="Lowest score of the objects.")]
Format = Annotated[ExportFormat, Query(description="The exported file to run.")]
Compare = Annotated[
    list[Compared] | None, Query(max_length=2, description="Also run the exported teacher or baseline.")
]


def _files_of_job(
    context: ContextDep, caller: Submitter, job_id: JobId, compare: Compare = None, format: Format = "onnx"
) -> list[ExportedFile]:
    return service.files_of_job(context, caller, job_id, compare or (), format)


def _file_of_detector(
    context: ContextDep, caller: Submitter, detector: IdOrName, format: Format = "onnx"
) -> list[ExportedFile]:
    return service.file_of_detector(context, caller, detector, format)


@router.post("/jobs/{job_id}/predict", openapi_extra=upload_body.upload_schema(MEDIA_TYPES))
def predict_with_job(
    context: ContextDep,
    caller: Submitter,
    files: Annotated[list[ExportedFile], Depends(_files_of_job)],
    image: Annotated[Upload, upload_body.receive_upload(_files_of_job, MEDIA_TYPES, MAX_BYTES)],
    threshold: Threshold = 0.3,
) -> Prediction:
    """Find objects on an image, of at most 20 MB, with the exported student of a job, or with an export.

    The file that runs is that of the newest export. The first image after a while takes longer: the file is loaded.
    """
    return service.predict(context, caller.owner, files, image.path, threshold)


@router.post("/detectors/{detector}/predict", openapi_extra=upload_body.upload_schema(MEDIA_TYPES))
def predict_with_detector(
    context: ContextDep,
    caller: Submitter,
    files: Annotated[list[ExportedFile], Depends(_file_of_detector)],
    image: Annotated[Upload, upload_body.receive_upload(_file_of_detector, MEDIA_TYPES, MAX_BYTES)],
    threshold: Threshold = 0.3,
) -> Prediction:
    """Find objects on an image, of at most 20 MB, with the newest export of a registered detector."""
    return service.predict(context, caller.owner, files, image.path, threshold)
