"""Response schemas of the job queue."""

from api.http.schemas import Page, ResponseModel, ResponseTime
from api.jobs.schemas import Progress, StatusReason


class QueuedJob(ResponseModel):
    """A job that waits for a worker."""

    position: int
    """Position in the queue, from 1; jobs of other owners count."""
    job_id: str
    name: str | None
    owner: str
    priority: int
    """Jobs of higher priority start first."""
    devices: int | None
    """Number of GPUs requested, on each host; null: one on a worker with GPUs, else the CPU."""
    nodes: int
    """Number of hosts requested."""
    status_reason: StatusReason
    """What the job waits for."""
    created_at: ResponseTime


class RunningJob(ResponseModel):
    """A job that a worker runs."""

    job_id: str
    name: str | None
    owner: str
    priority: int
    """Jobs of higher priority start first."""
    devices: int | None
    """Number of GPUs requested, on each host; null: one on a worker with GPUs, else the CPU."""
    nodes: int
    """Number of hosts requested."""
    attempt: int
    """Number of the attempt, from 1."""
    phase: str | None
    progress: Progress | None
    started_at: ResponseTime | None


class Counts(ResponseModel):
    """Number of jobs of all owners, by status."""

    queued: int
    running: int
    paused: int


class Queue(Page[QueuedJob]):
    """Queued and running jobs.

    Of other owners' jobs only the number is visible, unless the caller is an admin.
    """

    running: list[RunningJob]
    """Running jobs; the same on every page."""
    counts: Counts
    empty_at: ResponseTime | None
    """Estimated time at which all queued and running jobs of all owners have ended, if no more are submitted."""
    empty_at_reason: str | None
    """Why `empty_at` is null, for example because it is more than 10 years away; or whose jobs it leaves out: no job of
    that kind has succeeded recently."""
