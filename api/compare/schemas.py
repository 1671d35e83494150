"""Several jobs side by side. Every list that follows the jobs is in the order they were asked for."""

from typing import Any

from api.http.schemas import ResponseModel, ResponseTime
from api.jobs.schemas import Progress
from frs.spec import Kind, Method
from store.states import EndReason, JobStatus


class ComparedJob(ResponseModel):
    id: str
    name: str | None
    kind: Kind
    method: Method | None
    """Null where nothing is distilled."""
    status: JobStatus
    end_reason: EndReason | None
    attempt: int
    progress: Progress | None
    mAP: float | None
    """Of the student's last evaluation. No verdict: that takes a baseline of the same seed, see `GET /jobs/{id}/report`."""
    parameters: int | None
    flops: int | None
    latency_ms: float | None
    """These three of the student; null until the trainer has told them."""
    created_at: ResponseTime
    started_at: ResponseTime | None
    finished_at: ResponseTime | None


class SpecDifference(ResponseModel):
    """A field of the specs that is not the same in all."""

    path: str
    """Such as `schedule.batch_size`."""
    values: list[Any]
    """One for each job; null where its spec has no such field."""


class Curve(ResponseModel):
    """One metric of all jobs, on one grid."""

    key: str
    x: list[int]
    """Steps, ascending."""
    y: list[list[float | None]]
    """One list for each job, each as long as `x`; null where the job has no value at that step."""
    sampled: bool
    """Whether points were left out; no job's first, last or extreme ones are where `max_points` is 4 or more a job."""


class JobScores(ResponseModel):
    """COCO numbers, 0 to 1, of a job's student in its last evaluation."""

    job_id: str
    step: int
    last: bool
    """Whether it is the one that counts in the report; otherwise the newest of the training so far."""
    metrics: dict[str, float | None]
    per_class: dict[str, float | None]
    best: list[str]
    """Metrics in which none of the others is higher."""
    best_classes: list[str]


class Comparison(ResponseModel):
    jobs: list[ComparedJob]
    differences: list[SpecDifference]
    curves: list[Curve]
    evaluations: list[JobScores]
    """Of the jobs that have one."""
