"""Response models of the comparison. Lists with one entry per job are in the order of the request."""

from typing import Any

from api.http.schemas import AsStored, ResponseModel, ResponseTime
from api.jobs.schemas import Progress
from frs.distillation_spec import Method
from frs.spec import Kind
from store.states import EndReason, JobStatus


class ComparedJob(ResponseModel):
    """A job of the comparison with the results of its student."""

    id: str
    name: str | None
    kind: Kind
    method: AsStored[Method] | None
    """Null unless the job is a distillation."""
    status: JobStatus
    end_reason: EndReason | None
    attempt: int
    progress: Progress | None
    mAP: float | None
    """mAP of the student in its last evaluation.

    It is not evidence of an improvement, which requires a baseline of the same seed: see `GET /jobs/{id}/report`.
    """
    parameters: int | None
    """Number of parameters of the student; null until the trainer has reported it."""
    flops: int | None
    """FLOPs of the student for one image; null until the trainer has reported them."""
    latency_ms: float | None
    """Inference time of the student in ms; null until the trainer has reported it."""
    created_at: ResponseTime
    started_at: ResponseTime | None
    finished_at: ResponseTime | None


class SpecDifference(ResponseModel):
    """A field whose value is not the same in all specs."""

    path: str
    """Path of the field, such as `schedule.batch_size`."""
    values: list[Any]
    """One value per job; null if its spec does not have the field."""


class Curve(ResponseModel):
    """One metric of all jobs on a common grid of steps."""

    key: str
    """Name of the metric, such as `train/loss`."""
    x: list[int]
    """Steps, ascending."""
    y: list[list[float | None]]
    """One list per job, as long as `x`; null if the job has no value at that step."""
    sampled: bool
    """Whether points were omitted.

    If `max_points` is at least 4 per job, the first, last, minimum and maximum point of each job are included.
    """


class JobScores(ResponseModel):
    """COCO metrics, 0 to 1, of a job's student in its last evaluation."""

    job_id: str
    step: int
    last: bool
    """Whether the report uses this evaluation; otherwise it is the newest evaluation so far."""
    metrics: dict[str, float | None]
    per_class: dict[str, float | None]
    """mAP by class name."""
    best: list[str]
    """Metrics in which no other job of the comparison is higher."""
    best_classes: list[str]
    """Classes in which no other job of the comparison has a higher mAP."""


class Comparison(ResponseModel):
    """Several jobs side by side."""

    jobs: list[ComparedJob]
    differences: list[SpecDifference]
    curves: list[Curve]
    evaluations: list[JobScores]
    """Last evaluations; jobs without an evaluation are omitted."""
    comparable: bool
    """Whether they are on the same data set. If not, their metrics cannot be compared, and none is marked as best."""
