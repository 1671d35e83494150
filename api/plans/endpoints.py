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
WantsProbe = Annotated[bool, Query(description="Let a worker take a few steps: 202, and the answer at `Location`.")]


@router.post("/jobs/plan", response_model=Plan, responses={202: {"model": Probe, "description": "A probe."}})
def plan_job(
    here: ContextDep,
    caller: Submitter,
    spec: Annotated[JobSpec, Body(openapi_examples=EXAMPLES)],
    probe: WantsProbe = False,
) -> Plan | Response:
    """What `POST /jobs` would say to this spec, without posting it: every check, steps, place in the queue.

    With `probe=true` a worker also builds the detectors and takes a few steps: parameters, FLOPs, seconds a step,
    peak memory. That needs everything the spec refers to: 422 otherwise, and 409 while its teacher is being trained.
    """
    if not probe:
        return service.plan(here, caller, spec)
    made = service.probe(here, caller, spec)
    return JSONResponse(made.model_dump(mode="json"), 202, headers={"Location": f"/plans/{made.id}"})


@router.get("/plans/{plan_id}")
def get_plan(here: ContextDep, caller: Reader, plan_id: PlanId) -> Probe:
    """A probe: `queued` or `running`, then its result or what prevented it."""
    return service.find(here.database, caller, plan_id)
