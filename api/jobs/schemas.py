"""Jobs as the API shows them. What `POST /jobs` takes is `frs.spec.JobSpec`."""

from typing import Any, Literal

from api.http.schemas import ResponseModel, ResponseTime
from frs.spec import JobSpec, Kind
from store.states import Action, EndReason, JobStatus, WaitingReason

X = Literal["step", "epoch", "time"]


class StatusReason(ResponseModel):
    """Why a queued job waits."""

    code: WaitingReason
    message: str
    hint: str
    since: ResponseTime


class JobError(ResponseModel):
    """What went wrong, and what to do next."""

    code: str
    message: str
    hint: str


class Progress(ResponseModel):
    epoch: int
    epochs: int
    step: int
    steps: int
    fraction: float
    phase_fraction: float | None = None
    """How much of the phase at hand is done, where it is long work between steps."""
    eta_seconds: float | None = None
    images_per_second: float | None = None


class Job(ResponseModel):
    id: str
    name: str | None
    kind: Kind
    owner: str
    """That of the key it was posted with."""
    tags: list[str]
    """The spec's at first; `PATCH` changes them."""
    priority: int
    """As `tags`. Jobs of a higher one are taken first."""
    status: JobStatus
    is_terminal: bool
    allowed_actions: list[Action]
    phase: str | None
    """What the trainer is busy with; null unless the job runs."""
    status_reason: StatusReason | None
    end_reason: EndReason | None
    error: JobError | None
    progress: Progress | None
    attempt: int
    """0 until a worker has taken it."""
    queue_position: int | None
    """1 is next; null unless the job is queued."""
    parent_id: str | None
    """The job this one is a baseline, a sibling or the comparison of."""
    baseline_job_ids: list[str]
    """The student alone, one job for each seed."""
    seed_job_ids: list[str]
    """The same distillation with the further seeds."""
    comparison_job_id: str | None
    """The job that compares the runs once they have ended."""
    spec: JobSpec
    created_at: ResponseTime
    started_at: ResponseTime | None
    finished_at: ResponseTime | None


class MetricSeries(ResponseModel):
    """One metric. `x` and `y` have one entry per point, in the order of the steps."""

    key: str
    x: list[int | float]
    """By `?x=`: the step, the epoch, or seconds since 1970 UTC."""
    y: list[float | None]
    """Null: a size without objects."""
    count: int
    """Points there are; `x` and `y` hold fewer where `sampled`."""
    min: float | None
    max: float | None
    last: float | None
    sampled: bool
    """Whether points were left out; the first and the last never are, nor the extremes where `max_points` is 4 or more."""


class Metrics(ResponseModel):
    series: list[MetricSeries]
    next_since: int
    """Give it back as `since` for what was written after this answer."""


class Event(ResponseModel):
    seq: int
    """Numbers the events of one job, ascending; numbers of log lines and metrics lie between."""
    type: str
    at: ResponseTime
    attempt: int
    data: dict[str, Any]


class LogLine(ResponseModel):
    seq: int
    at: ResponseTime
    attempt: int
    level: str
    message: str


class Evaluation(ResponseModel):
    """COCO numbers, 0 to 1, of one detector on the validation split."""

    role: Literal["teacher", "student"]
    step: int
    epoch: int
    attempt: int
    last: bool
    """The one that counts in the report."""
    metrics: dict[str, float | None]
    per_class: dict[str, float | None]
    images: int
    detections: int
    at: ResponseTime


class Artifact(ResponseModel):
    """A deliverable that is no checkpoint; its content: `GET /jobs/{id}/artifacts/{name}`."""

    name: str
    sha256: str
    bytes: int
    created_at: ResponseTime
