"""What a job would be, before anybody posts it."""

from api.http.schemas import ResponseModel, ResponseTime
from api.jobs.schemas import JobError, StatusReason
from frs.preflight.checks import Check
from frs.preflight.estimate import Estimate
from frs.spec import JobSpec
from store.states import RequestStatus


class Plan(ResponseModel):
    """Found out at once, from the database alone. Null: a check says why it is not known."""

    ok: bool
    """Whether no check prevents the job."""
    spec: JobSpec
    """With every default spelt out."""
    checks: list[Check]
    """`error` prevents the job; `warning` is worth a look; `info` is neither."""
    training_images: int | None
    """Those with boxes, without the ones that are left out."""
    epochs: int | None
    steps: int | None
    queue_position: int
    """Its place if it were posted now."""
    jobs: int
    """That it would make: itself, baselines, siblings, their comparison."""


class Probe(ResponseModel):
    """A plan that a worker makes by building the detectors and taking a few steps."""

    id: str
    status: RequestStatus
    status_reason: StatusReason | None
    """Why it is `queued`."""
    spec: JobSpec
    result: Estimate | None
    """Once it has `succeeded`, which it does where a check fails, too."""
    error: JobError | None
    """Why there is no result, once it has `failed`."""
    created_at: ResponseTime
    finished_at: ResponseTime | None
