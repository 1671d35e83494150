"""Endpoints that start and list exports."""

from typing import Annotated

from fastapi import APIRouter, Body, Response

from api.context import ContextDep
from api.exports import service
from api.exports.schemas import Export
from api.http.auth import Reader, Submitter
from api.http.idempotency import IdempotencyKey
from api.http.pagination import Cursor, Limit
from api.http.schemas import JobId, Page
from api.jobs.endpoints import submit_once
from api.jobs.schemas import Job
from frs.spec import ExportSettings

router = APIRouter(prefix="/jobs", tags=["exports"])
DEFAULTS = ExportSettings()


@router.post("/{job_id}/exports", status_code=201)
def start_export(
    context: ContextDep,
    caller: Submitter,
    response: Response,
    job_id: JobId,
    settings: Annotated[ExportSettings, Body()] = DEFAULTS,
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """Export a job's student as ONNX files, each compared with the student on the validation images.

    The export is a job of kind `export` of its own, which waits for the student if need be. Its artifacts are the
    files, `frs_runner.py`, which runs them with numpy, Pillow and onnxruntime alone, and `export.json`.
    """
    return submit_once(
        context, caller, response, lambda: service.start(context, caller, job_id, settings, idempotency_key)
    )


@router.get("/{job_id}/exports")
def list_exports(
    context: ContextDep, caller: Reader, job_id: JobId, limit: Limit = 50, cursor: Cursor = None
) -> Page[Export]:
    """List the exports of a job's student, newest first, with sizes, latencies and the comparison with the student.

    Of a job of kind `export`, that one.
    """
    return service.list_exports(context.database, caller, job_id, limit, cursor)
