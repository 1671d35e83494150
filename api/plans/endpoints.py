"""Endpoints that check a job spec without submitting it."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query
from fastapi.responses import JSONResponse
from starlette.responses import Response

from api.context import ContextDep
from api.http.auth import Reader, Submitter
from api.jobs.endpoints import EXAMPLES
from api.plans import service
from api.plans.schemas import Plan, Probe
from frs.spec import JobSpec

router = APIRouter(tags=["plans"])

PlanId = Annotated[str, Path(pattern=r"^plan_[0-9a-z]{26}$")]
WithProbe = Annotated[
    bool, Query(description="Run a few training steps on a worker. Responds with 202; poll the URL in `Location`.")
]


@router.post(
    "/jobs/plan", response_model=Plan, responses={202: {"model": Probe, "description": "The probe was queued."}}
)
def plan_job(
    context: ContextDep,
    caller: Submitter,
    spec: Annotated[JobSpec, Body(openapi_examples=EXAMPLES)],
    probe: WithProbe = False,
) -> Plan | Response:
    """Check a job spec without submitting it: all checks, the number of training steps, the position in the queue.

    With `probe=true` a worker also builds the detectors and runs a few training steps to measure parameters, FLOPs,
    seconds per step and peak memory. A probe requires everything that the spec refers to: it fails with status 422 if
    something is missing, and with 409 while the teacher is being trained.
    """
    if not probe:
        return service.plan(context, caller, spec)
    queued = service.probe(context, caller, spec)
    return JSONResponse(queued.model_dump(mode="json"), 202, headers={"Location": f"/plans/{queued.id}"})


@router.get("/plans/{plan_id}")
def get_plan(context: ContextDep, caller: Reader, plan_id: PlanId) -> Probe:
    """Return a probe with its status and, when it has finished, its result or its error."""
    return service.get_probe(context.database, caller, plan_id)
