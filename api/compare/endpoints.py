"""Endpoint that compares several jobs."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.compare import service
from api.compare.schemas import Comparison
from api.context import ContextDep
from api.http.auth import Reader
from api.http.errors import InvalidField
from api.http.openapi import problem_schema

router = APIRouter(prefix="/compare", tags=["jobs"])

MAX_JOBS = 16
"""Maximum number of jobs in one comparison."""
_ID = "job_[0-9a-z]{26}"
JobIds = Annotated[
    str,
    Query(pattern=rf"^{_ID}(,{_ID}){{1,{MAX_JOBS - 1}}}$", description=f"2 to {MAX_JOBS} ids, separated by commas."),
]


@router.get("", responses={404: problem_schema(404)})
def compare(
    context: ContextDep,
    caller: Reader,
    jobs: JobIds,
    keys: Annotated[
        str | None,
        Query(max_length=2000, description="Metrics to return, separated by commas: `train/loss,val/bbox_mAP`."),
    ] = None,
    max_points: Annotated[
        int, Query(ge=2 * MAX_JOBS, le=10_000, description="Maximum number of points per metric, all jobs together.")
    ] = 500,
) -> Comparison:
    """Compare jobs: differences of their specs, curves on a common grid of steps, last evaluations of the students."""
    job_ids = list(dict.fromkeys(jobs.split(",")))
    if len(job_ids) < 2:
        raise InvalidField(
            "jobs", "nothing_to_compare", "All ids in `jobs` are the same.", "Send the ids of at least two jobs."
        )
    return service.compare_jobs(context, caller, job_ids, keys.split(",") if keys else None, max_points)
