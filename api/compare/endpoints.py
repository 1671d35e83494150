from typing import Annotated

from fastapi import APIRouter, Query

from api.compare import service
from api.compare.schemas import Comparison
from api.context import ContextDep
from api.http.auth import Reader
from api.http.errors import InvalidField
from api.http.openapi import problem

router = APIRouter(prefix="/compare", tags=["jobs"])

MAX_JOBS = 16
"""Jobs side by side."""
_ID = "job_[0-9a-z]{26}"
JobIds = Annotated[
    str,
    Query(pattern=rf"^{_ID}(,{_ID}){{1,{MAX_JOBS - 1}}}$", description=f"2 to {MAX_JOBS} ids, separated by commas."),
]


@router.get("", responses={404: problem(404)})
def compare(
    here: ContextDep,
    caller: Reader,
    jobs: JobIds,
    keys: Annotated[str | None, Query(max_length=2000, description="Such as `train/loss,val/bbox_mAP`.")] = None,
    max_points: Annotated[
        int, Query(ge=2 * MAX_JOBS, le=10_000, description="Of each curve, all jobs together.")
    ] = 500,
) -> Comparison:
    """Jobs side by side: where their specs differ, their curves on one grid, their students' last evaluations."""
    job_ids = list(dict.fromkeys(jobs.split(",")))
    if len(job_ids) < 2:
        raise InvalidField("jobs", "nothing_to_compare", "This is one job, named twice.", "Name at least two.")
    return service.compare_jobs(here, caller, job_ids, keys.split(",") if keys else None, max_points)
