"""Response model of checkpoints."""

from typing import Literal

from api.http.schemas import ResponseModel, ResponseTime


class Checkpoint(ResponseModel):
    """A checkpoint of a job. `GET /checkpoints/{id}/content` returns the file."""

    id: str
    job_id: str
    """The job that wrote it."""
    attempt: int
    """Number of the attempt that wrote it."""
    kind: Literal["student", "training"]
    """`student`: mmdet weights. `training`: the state from which a later attempt resumes."""
    labels: list[Literal["best", "last"]]
    """Whether it is the best or the last student of the job."""
    step: int
    epoch: int
    sha256: str
    bytes: int
    """Size in bytes."""
    metrics: dict[str, float | None]
    """COCO metrics of the student, 0 to 1."""
    created_at: ResponseTime
