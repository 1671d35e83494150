"""Response models of jobs. The request body of `POST /jobs` is `frs.spec.JobSpec`."""

from typing import Any, Literal

from api.http.schemas import AsStored, ResponseModel, ResponseTime
from frs.spec import JobSpec, Kind
from store.states import Action, AttemptEnd, EndReason, JobStatus, WaitingReason

X = Literal["step", "epoch", "time"]


class StatusReason(ResponseModel):
    """The reason why a queued job waits."""

    code: WaitingReason
    message: str
    hint: str
    """What to do about it."""
    since: ResponseTime
    """When the job began to wait for this reason."""


class JobError(ResponseModel):
    """The error that ended a job, with a hint for the next step."""

    code: str
    message: str
    hint: str


class Progress(ResponseModel):
    """Progress of a job's training."""

    epoch: int
    epochs: int
    """Number of epochs in total."""
    step: int
    steps: int
    """Number of training steps in total."""
    fraction: float
    """Completed fraction of the job, 0 to 1."""
    phase_fraction: float | None = None
    """Completed fraction of the current phase, 0 to 1; set in long phases without training steps."""
    eta_seconds: float | None = None
    """Estimated remaining time in seconds; null unless the job is running."""
    images_per_second: float | None = None
    """Null unless the job is running."""
    stale: bool = False
    """Whether the job is running by name only: its worker has not renewed the lease in time."""


class Job(ResponseModel):
    """A job with its current state."""

    id: str
    name: str | None
    kind: Kind
    owner: str
    """Owner of the API key that submitted the job."""
    tags: list[str]
    """Initially the tags of the spec; `PATCH /jobs/{id}` changes them."""
    priority: int
    """Initially the priority of the spec; `PATCH /jobs/{id}` changes it. Workers take jobs of higher priority first."""
    status: JobStatus
    is_terminal: bool
    """Whether the job has ended."""
    allowed_actions: list[Action]
    """Actions that the job accepts in its current status."""
    phase: str | None
    """Current phase of the trainer; null unless the job is running."""
    status_reason: StatusReason | None
    """Why the job waits; null unless it is queued."""
    end_reason: EndReason | None
    """Why the job ended; null until then."""
    error: JobError | None
    progress: Progress | None
    mAP: float | None
    """mAP of the student on the validation images, 0 to 1, in the evaluation at the end; null until then.

    It alone is not evidence of an improvement, which requires a baseline of the same seed: see `GET /jobs/{id}/report`.
    """
    attempt: int
    """Number of the current attempt; 0 until a worker has claimed the job."""
    queue_position: int | None
    """Position in the queue, from 1; null unless the job is queued."""
    parent_id: str | None
    """Id of the job for which this job is a baseline, a seed variant or the comparison."""
    baseline_job_ids: list[str]
    """Trainings of the student without distillation, one per seed."""
    seed_job_ids: list[str]
    """The same distillation with the other seeds."""
    comparison_job_id: str | None
    """The job that compares the runs when all of them have ended."""
    spec: AsStored[JobSpec]
    """The spec as submitted, with all defaults filled in."""
    created_at: ResponseTime
    started_at: ResponseTime | None
    finished_at: ResponseTime | None


class Attempt(ResponseModel):
    """One execution of a job by a worker."""

    number: int
    worker: str
    """Name of the worker."""
    started_at: ResponseTime
    ended_at: ResponseTime | None
    end: AttemptEnd | None
    """How the attempt ended; null while it runs."""
    start_step: int | None
    """Step that the attempt continued from; null until the trainer has reported it."""


class ActionRequest(ResponseModel):
    """An action that a user requested."""

    action: Literal["cancel", "pause", "stop"]
    by: str | None
    """Owner of the key that requested it; null if the request is older than this field."""
    at: ResponseTime


class DependentJob(ResponseModel):
    """A job that needs the student of another job."""

    id: str
    name: str | None
    status: JobStatus


class JobDetails(Job):
    """A job with its attempts, the action that a user requested of it, and the jobs that need its student."""

    dependents: list[DependentJob]
    """Jobs that have not ended and need the student of this job, directly or through another one, oldest first; empty
    once this job has ended. They fail if this job is cancelled or fails, while their baselines run alone."""

    requested_action: ActionRequest | None
    """The newest cancel, pause or stop that was requested and not followed by a resume or retry."""
    attempts: list[Attempt]
    """The newest 20 attempts, oldest first."""


class MetricSeries(ResponseModel):
    """One metric. `x` and `y` hold one entry per point, ordered by step."""

    key: str
    """Name of the metric, such as `train/loss`."""
    x: list[int | float]
    """Step, epoch or time in seconds since 1970 (UTC), as selected with `?x=`."""
    y: list[float | None]
    """Values; null where the metric is undefined, such as the mAP of a size without objects."""
    count: int
    """Number of recorded points; `x` and `y` hold fewer points if `sampled`."""
    min: float | None
    max: float | None
    last: float | None
    sampled: bool
    """Whether points were omitted.

    The first and the last point are always included, minimum and maximum if `max_points` is 4 or more.
    """


class Metrics(ResponseModel):
    """Metric curves of a job."""

    series: list[MetricSeries]
    next_since: int
    """Pass this number as `since` to receive only points that were recorded after this response."""


class Event(ResponseModel):
    """An entry of a job's history."""

    seq: int
    """Ascending number of the event within the job. Log lines and metrics share the same numbering."""
    type: str
    at: ResponseTime
    attempt: int
    data: dict[str, Any]
    """Fields of the event; they depend on its type."""


class LogLine(ResponseModel):
    """A line of a job's log."""

    seq: int
    """Ascending number of the line within the job; events and metrics share the same numbering."""
    at: ResponseTime
    attempt: int
    level: str
    message: str


class Evaluation(ResponseModel):
    """COCO metrics, 0 to 1, of one detector on the validation split."""

    role: Literal["teacher", "student"]
    step: int
    epoch: int
    attempt: int
    last: bool
    """Whether the report uses this evaluation."""
    metrics: dict[str, float | None]
    """Value by metric name; null for a size without objects."""
    per_class: dict[str, float | None]
    """mAP by class name."""
    images: int
    """Number of evaluated images."""
    detections: int
    """Number of detected boxes."""
    at: ResponseTime


class Artifact(ResponseModel):
    """A file of a job other than a checkpoint. `GET /jobs/{id}/artifacts/{name}` returns its content."""

    name: str
    sha256: str
    bytes: int
    """Size in bytes."""
    created_at: ResponseTime
