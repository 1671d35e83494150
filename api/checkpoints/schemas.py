"""Checkpoints as the API shows them."""

from typing import Literal

from api.http.schemas import ResponseModel, ResponseTime


class Checkpoint(ResponseModel):
    """Its content: `GET /checkpoints/{id}/content`."""

    id: str
    job_id: str
    attempt: int
    kind: Literal["student", "training"]
    """`student`: plain mmdet weights. `training`: what a later attempt goes on from."""
    labels: list[Literal["best", "last"]]
    step: int
    epoch: int
    sha256: str
    bytes: int
    metrics: dict[str, float | None]
    created_at: ResponseTime
