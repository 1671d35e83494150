"""Response schemas of workers."""

from api.http.schemas import ResponseModel, ResponseTime


class Gpu(ResponseModel):
    """A GPU of a worker; a value is null if the worker cannot measure it."""

    index: int | None = None
    name: str | None = None
    memory_total: int | None = None
    """Bytes."""
    memory_used: int | None = None
    """Bytes in use by all processes."""
    utilization: float | None = None
    """Utilization in percent."""


class Worker(ResponseModel):
    """A registered worker."""

    id: str
    """Id of the worker's process."""
    name: str | None
    """Name of the worker, which survives a restart; null for a worker of an earlier version."""
    host: str
    version: str
    concurrency: int
    """Maximum number of jobs that the worker runs at a time."""
    gpus: list[Gpu]
    nodes: int
    """Number of hosts on which the worker runs a job; it claims only jobs of that number."""
    draining: bool
    """Whether the worker is shutting down: it takes no new jobs and returns its running jobs to the queue."""
    missing: list[str]
    """Requirements of the caller's queued jobs that the worker does not meet; the name is the subject of each text."""
    running: int
    """Number of jobs that the worker runs now."""
    failures_in_a_row: int
    """Number of jobs whose trainer crashed on this worker, or whose lease expired, since its last attempt that ended
    well: from 3 on, suspect the worker rather than the jobs."""
    job_ids: list[str]
    """Ids of the running jobs that the caller may see."""
    started_at: ResponseTime
    seen_at: ResponseTime
    """Time of the last heartbeat; a worker is no longer listed one minute after it."""
