"""Response schemas of the disk usage. Sizes are in bytes."""

from typing import Literal

from api.http.schemas import ResponseModel


class OwnerUsage(ResponseModel):
    """Size of the stored files of one owner, as recorded in the database."""

    owner: str
    checkpoints: int
    """Training checkpoints and students."""
    artifacts: int
    """Reports, pictures and other deliverables of jobs."""
    datasets: int
    """Uploaded data sets: archives and unpacked files."""
    detectors: int
    """Uploaded weights, and registered students whose job was deleted."""
    total: int
    limit: int
    """Uploads and new jobs are refused above it: the limit of the caller's key, of another owner's keys the largest."""


class Disk(ResponseModel):
    """The disk of a folder of the service, as this API process sees it."""

    name: Literal["work", "uploads", "artifacts"]
    total: int
    free: int
    floor: int
    """Below this free space, jobs wait with the reason `waiting_for_storage` and uploads are refused."""


class Usage(ResponseModel):
    """Disk usage."""

    owners: list[OwnerUsage]
    disks: list[Disk]
    """Without artifacts in object storage."""
