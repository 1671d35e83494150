"""Response models of plans and probes."""

from api.http.schemas import AsStored, ResponseModel, ResponseTime
from api.jobs.schemas import JobError, StatusReason
from frs.preflight.estimate import Estimate
from frs.preflight.step_runner import Check
from frs.spec import JobSpec
from store.states import RequestStatus


class Plan(ResponseModel):
    """A plan from the database, without a worker. For each value that is null, a check contains the reason."""

    ok: bool
    """Whether `POST /jobs` accepts the spec: no check has the level `error`."""
    spec: JobSpec
    """The spec with all defaults filled in."""
    checks: list[Check]
    """Results of all checks.

    Level `error`: the job is rejected; `warning`: it would wait or exclude images; `info`: neither.
    """
    training_images: int | None
    """Number of images that are trained on."""
    epochs: int | None
    steps: int | None
    """Number of training steps in total."""
    queue_position: int
    """Position in the queue if the job were submitted now, from 1."""
    jobs: int
    """Number of jobs to be created: the job itself, its baselines, its seed variants and their comparison."""


class Probe(ResponseModel):
    """A plan for which a worker builds the detectors and runs a few training steps."""

    id: str
    status: RequestStatus
    status_reason: StatusReason | None
    """Why the probe waits; null unless it is `queued`."""
    spec: AsStored[JobSpec]
    result: Estimate | None
    """Set when the probe has `succeeded`; its checks may still have failed."""
    error: JobError | None
    """Why there is no result; set when the probe has `failed`."""
    created_at: ResponseTime
    finished_at: ResponseTime | None
