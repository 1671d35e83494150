"""The line before the workers, as the API shows it."""

from api.http.schemas import Page, ResponseModel, ResponseTime
from api.jobs.schemas import Progress, StatusReason


class QueuedJob(ResponseModel):
    position: int
    """1 is next. Jobs of other owners count."""
    job_id: str
    name: str | None
    owner: str
    priority: int
    devices: int | None
    """GPUs it asks for; null: one where there are any."""
    status_reason: StatusReason
    """What it waits for."""
    created_at: ResponseTime


class RunningJob(ResponseModel):
    job_id: str
    name: str | None
    owner: str
    priority: int
    devices: int | None
    attempt: int
    phase: str | None
    progress: Progress | None
    started_at: ResponseTime | None


class Counts(ResponseModel):
    """Jobs of all owners."""

    queued: int
    running: int
    paused: int


class Queue(Page[QueuedJob]):
    """Of another owner's jobs no more than how many they are, unless the caller is an admin."""

    running: list[RunningJob]
    """The same on every page."""
    counts: Counts
