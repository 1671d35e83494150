"""Workers as the API shows them."""

from api.http.schemas import ResponseModel, ResponseTime


class Gpu(ResponseModel):
    """Null: the worker could not find it out."""

    index: int | None = None
    name: str | None = None
    memory_total: int | None = None
    """Bytes."""
    memory_used: int | None = None
    """Bytes, by whatever runs on it."""
    utilization: float | None = None
    """Percent."""


class Worker(ResponseModel):
    id: str
    host: str
    version: str
    concurrency: int
    """Jobs it runs at a time."""
    gpus: list[Gpu]
    draining: bool
    """It takes no more jobs and gives back what it has."""
    missing: list[str]
    """What the caller's jobs in the queue need and it has not, in sentences that its host begins."""
    running: int
    """Jobs it runs at present."""
    job_ids: list[str]
    """Those of them that the caller may see."""
    started_at: ResponseTime
    seen_at: ResponseTime
    """When it last said that it is there; after a minute of silence it is left out."""
