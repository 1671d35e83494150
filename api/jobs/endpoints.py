from typing import Annotated

from fastapi import APIRouter, Body, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.checkpoints.schemas import Checkpoint
from api.context import ContextDep
from api.http import files
from api.http.auth import Reader, Submitter
from api.http.pagination import Cursor, Limit
from api.http.schemas import ArtifactName, JobId, Page, RequestTime
from api.jobs import metrics, results, service
from api.jobs.schemas import Artifact, Evaluation, Event, Job, LogLine, Metrics, X
from frs.evaluation.report import Report
from frs.recipes import RECIPES
from frs.spec import JobSpec, Kind, Name
from store.errors import AlreadySubmitted
from store.states import JobStatus

router = APIRouter(prefix="/jobs", tags=["jobs"])

EXAMPLES = {name: {"summary": recipe.title, "value": recipe.spec_as_dict()} for name, recipe in RECIPES.items()}
IdempotencyKey = Annotated[
    str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")
]


@router.post("", status_code=201)
def submit(
    here: ContextDep,
    caller: Submitter,
    response: Response,
    spec: Annotated[JobSpec, Body(openapi_examples=EXAMPLES)],
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """Checks what the spec refers to and puts the job in the queue."""
    try:
        job = service.submit(here, caller, spec, idempotency_key)
    except AlreadySubmitted as earlier:
        job = service.find(here.database, caller, earlier.job_id)
        response.headers["Idempotency-Replayed"] = "true"
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@router.get("")
def list_jobs(
    here: ContextDep,
    caller: Reader,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: Annotated[list[JobStatus] | None, Query()] = None,
    kind: Annotated[list[Kind] | None, Query()] = None,
    dataset: Annotated[Name | None, Query(description="Its id or its name.")] = None,
    tag: Annotated[str | None, Query(max_length=64)] = None,
    created_after: RequestTime | None = None,
    created_before: RequestTime | None = None,
) -> Page[Job]:
    """Newest first."""
    wanted = service.JobFilter(status, kind, dataset, tag, created_after, created_before)
    return service.listing(here.database, caller, wanted, limit, cursor)


@router.get("/{job_id}")
def get_job(here: ContextDep, caller: Reader, job_id: JobId) -> Job:
    """Where it stands, why it waits or ended, what it takes now."""
    return service.find(here.database, caller, job_id)


@router.post("/{job_id}/cancel", status_code=202)
def cancel(here: ContextDep, caller: Submitter, job_id: JobId) -> Job:
    """A waiting job ends at once, a running one as soon as its worker has stopped the trainer. Asking twice is fine."""
    return service.cancel(here.database, caller, job_id)


@router.get("/{job_id}/metrics", response_model=Metrics, responses=files.content_response("text/csv"))
def get_metrics(
    here: ContextDep,
    caller: Reader,
    request: Request,
    job_id: JobId,
    keys: Annotated[str | None, Query(max_length=2000, description="Such as `train/loss,val/bbox_mAP`.")] = None,
    x: X = "step",
    since: Annotated[int, Query(ge=0, lt=2**53, description="`next_since` of an earlier answer.")] = 0,
    max_points: Annotated[
        int, Query(ge=2, le=10_000, description="Of each series; 4 or more keep the extremes.")
    ] = 500,
) -> Metrics | Response:
    """With `Accept: text/csv` the same points as `key,x,y` lines."""
    found = metrics.read(
        here.database, here.curves, caller, job_id, keys.split(",") if keys else None, x, since, max_points
    )
    if "text/csv" in request.headers.get("accept", ""):
        return Response(metrics.as_csv(found, x), media_type="text/csv")
    return found


@router.get("/{job_id}/events")
def list_events(
    here: ContextDep, caller: Reader, job_id: JobId, limit: Limit = 50, cursor: Cursor = None
) -> Page[Event]:
    """The job's history, oldest first, without its log lines and metrics."""
    return results.events(here.database, caller, job_id, limit, cursor)


@router.get("/{job_id}/logs")
def list_logs(
    here: ContextDep,
    caller: Reader,
    job_id: JobId,
    limit: Limit = 50,
    cursor: Cursor = None,
    tail: Annotated[int | None, Query(ge=1, le=200, description="Only so many of the newest lines.")] = None,
) -> Page[LogLine]:
    """Oldest first."""
    return results.logs(here.database, caller, job_id, limit, cursor, tail)


@router.get("/{job_id}/checkpoints")
def list_checkpoints(here: ContextDep, caller: Reader, job_id: JobId) -> Page[Checkpoint]:
    """Oldest first: students (best and last) and the two newest training checkpoints."""
    return results.checkpoints(here.database, caller, job_id)


@router.get("/{job_id}/evaluations")
def list_evaluations(here: ContextDep, caller: Reader, job_id: JobId) -> Page[Evaluation]:
    """By step: COCO metrics of student and teacher on the validation images."""
    return results.evaluations(here.database, caller, job_id)


@router.get("/{job_id}/report")
def get_report(here: ContextDep, caller: Reader, job_id: JobId) -> Report:
    """Teacher, baseline and student side by side; `partial` until all of them have been evaluated."""
    return results.report(here.database, caller, job_id)


@router.get(
    "/{job_id}/config",
    response_class=StreamingResponse,
    responses=files.range_responses("text/plain"),
    dependencies=[files.RANGE_HEADERS],
)
def get_config(here: ContextDep, caller: Reader, request: Request, job_id: JobId) -> Response:
    """The mmdet config that builds the student."""
    config = results.artifact(here.database, caller, job_id, results.CONFIG)
    return files.file_response(request, here.artifacts, config, media_type="text/plain")


@router.get("/{job_id}/artifacts")
def list_artifacts(here: ContextDep, caller: Reader, job_id: JobId) -> Page[Artifact]:
    """What it left behind besides checkpoints: report, log, config of the student."""
    return results.artifacts(here.database, caller, job_id)


@router.get(
    "/{job_id}/artifacts/{name}",
    response_class=StreamingResponse,
    responses=files.range_responses(files.BINARY),
    dependencies=[files.RANGE_HEADERS],
)
def get_artifact(here: ContextDep, caller: Reader, request: Request, job_id: JobId, name: ArtifactName) -> Response:
    """The file, whole or by `Range`; the ETag is its sha256."""
    artifact = results.artifact(here.database, caller, job_id, name)
    return files.file_response(request, here.artifacts, artifact, filename=artifact.name)
