"""Endpoints that submit, list and cancel jobs and read their results."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.checkpoints.schemas import Checkpoint
from api.context import Context, ContextDep
from api.http import files
from api.http.auth import Caller, Own, Reader, Submitter
from api.http.idempotency import REPLAYED, IdempotencyKey
from api.http.pagination import MAX_SEQUENCE_NUMBER, Cursor, Limit
from api.http.schemas import ArtifactName, JobId, Page, RequestTime
from api.jobs import metrics, results, service
from api.jobs.schemas import Artifact, Evaluation, Event, Job, JobDetails, LogLine, Metrics, X
from frs.evaluation.report import Report
from frs.names import Name
from frs.recipes import RECIPES
from frs.spec import JobSpec, Kind
from store.errors import AlreadySubmitted
from store.states import JobStatus

router = APIRouter(prefix="/jobs", tags=["jobs"])

EXAMPLES = {name: {"summary": recipe.title, "value": recipe.spec_as_dict()} for name, recipe in RECIPES.items()}


@router.post("", status_code=201)
def submit(
    context: ContextDep,
    caller: Submitter,
    response: Response,
    spec: Annotated[JobSpec, Body(openapi_examples=EXAMPLES)],
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """Check a job spec and everything it refers to, and add the job to the queue.

    A repeated request with the same `Idempotency-Key` returns the job of the first request, with the header
    `Idempotency-Replayed: true`.
    """
    return submit_once(context, caller, response, lambda: service.submit(context, caller, spec, idempotency_key))


def submit_once(context: Context, caller: Caller, response: Response, submit: Callable[[], Job]) -> Job:
    """Return the job of `submit()`, or that of the first request with the same idempotency key; set the headers."""
    try:
        job = submit()
    except AlreadySubmitted as earlier:
        job = service.get_job(context.database, caller, earlier.job_id)
        response.headers.update(REPLAYED)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@router.get("")
def list_jobs(
    context: ContextDep,
    caller: Reader,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: Annotated[list[JobStatus] | None, Query(description="Only jobs in one of these states.")] = None,
    kind: Annotated[list[Kind] | None, Query(description="Only jobs of one of these kinds.")] = None,
    name: Annotated[str | None, Query(max_length=128, description="Only jobs whose name contains this text.")] = None,
    dataset: Annotated[Name | None, Query(description="Id or name of a data set.")] = None,
    tag: Annotated[str | None, Query(max_length=64, description="Only jobs with exactly this tag.")] = None,
    created_after: RequestTime | None = None,
    created_before: RequestTime | None = None,
    own: Own = False,
) -> Page[Job]:
    """List jobs, newest first."""
    job_filter = service.JobFilter(status, kind, name, dataset, tag, created_after, created_before, own)
    return service.list_jobs(context.database, caller, job_filter, limit, cursor)


@router.get("/{job_id}")
def get_job(context: ContextDep, caller: Reader, job_id: JobId) -> JobDetails:
    """Return a job: its status, progress, the reason why it waits or ended, its attempts, and the actions it accepts.

    `requested_action` names the user who cancelled, paused or stopped it.
    """
    return service.get_details(context.database, caller, job_id)


@router.post("/{job_id}/cancel", status_code=202)
def cancel(context: ContextDep, caller: Submitter, job_id: JobId) -> Job:
    """Cancel a job, with its baselines, seed variants and comparison. Idempotent.

    A queued job ends immediately, a running job as soon as its worker has stopped the training.
    """
    return service.cancel(context.database, caller, job_id)


@router.get("/{job_id}/metrics", response_model=Metrics, responses=files.content_response("text/csv"))
def get_metrics(
    context: ContextDep,
    caller: Reader,
    request: Request,
    job_id: JobId,
    keys: Annotated[
        str | None,
        Query(max_length=2000, description="Metrics to return, separated by commas: `train/loss,val/bbox_mAP`."),
    ] = None,
    x: X = "step",
    since: Annotated[int, Query(ge=0, le=MAX_SEQUENCE_NUMBER, description="`next_since` of an earlier response.")] = 0,
    max_points: Annotated[
        int,
        Query(ge=2, le=10_000, description="Maximum number of points per series. With 4 or more, extremes are kept."),
    ] = 500,
) -> Metrics | Response:
    """Return the metric curves of a job, downsampled to `max_points`.

    With `Accept: text/csv` the response holds the same points as lines of `key,x,value`.
    """
    curves = metrics.read_metrics(
        context.database, context.metric_cache, caller, job_id, keys.split(",") if keys else None, x, since, max_points
    )
    if "text/csv" in request.headers.get("accept", ""):
        return Response(metrics.to_csv(curves, x), media_type="text/csv")
    return curves


@router.get("/{job_id}/events")
def list_events(
    context: ContextDep, caller: Reader, job_id: JobId, limit: Limit = 50, cursor: Cursor = None
) -> Page[Event]:
    """List the events of a job, oldest first, without log lines and metrics."""
    return results.list_events(context.database, caller, job_id, limit, cursor)


@router.get("/{job_id}/logs")
def list_logs(
    context: ContextDep,
    caller: Reader,
    job_id: JobId,
    limit: Limit = 50,
    cursor: Cursor = None,
    tail: Annotated[int | None, Query(ge=1, le=200, description="Return only this many of the newest lines.")] = None,
) -> Page[LogLine]:
    """List the log lines of a job, oldest first."""
    return results.list_logs(context.database, caller, job_id, limit, cursor, tail)


@router.get("/{job_id}/checkpoints")
def list_checkpoints(context: ContextDep, caller: Reader, job_id: JobId) -> Page[Checkpoint]:
    """List the checkpoints of a job, oldest first.

    These are the best and the last student and, until the job has succeeded, the two newest training checkpoints.
    """
    return results.list_checkpoints(context.database, caller, job_id)


@router.get("/{job_id}/evaluations")
def list_evaluations(context: ContextDep, caller: Reader, job_id: JobId) -> Page[Evaluation]:
    """List the COCO metrics of student and teacher on the validation split, by training step."""
    return results.list_evaluations(context.database, caller, job_id)


@router.get("/{job_id}/report")
def get_report(
    context: ContextDep,
    caller: Reader,
    job_id: JobId,
    student: Annotated[results.StudentLabel, Query(description="The student that the report is about.")] = "last",
) -> Report:
    """Return the comparison of teacher, baseline and student.

    The status of the report is `partial` until all of them have been evaluated. The report of the `best` student has no
    baseline: gain and verdict compare last students.
    """
    return results.build_report(context.database, caller, job_id, student)


@router.get(
    "/{job_id}/config",
    response_class=StreamingResponse,
    responses=files.range_responses("text/plain"),
    dependencies=[files.RANGE_HEADERS],
)
def get_config(context: ContextDep, caller: Reader, request: Request, job_id: JobId) -> Response:
    """Download the mmdet config that builds the student."""
    config = results.get_artifact(context.database, caller, job_id, results.CONFIG)
    return files.file_response(request, context.artifacts, config, media_type="text/plain")


@router.get("/{job_id}/artifacts")
def list_artifacts(context: ContextDep, caller: Reader, job_id: JobId) -> Page[Artifact]:
    """List the files of a job other than checkpoints, such as its report, log and student config."""
    return results.list_artifacts(context.database, caller, job_id)


@router.get(
    "/{job_id}/artifacts/{name}",
    response_class=StreamingResponse,
    responses=files.range_responses(files.BINARY),
    dependencies=[files.RANGE_HEADERS],
)
def get_artifact(context: ContextDep, caller: Reader, request: Request, job_id: JobId, name: ArtifactName) -> Response:
    """Download an artifact, completely or in part with `Range`. The ETag is its SHA-256."""
    artifact = results.get_artifact(context.database, caller, job_id, name)
    return files.file_response(request, context.artifacts, artifact, filename=artifact.name)
