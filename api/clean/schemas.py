"""Request and response schemas of a clean-up."""

from typing import Annotated

from pydantic import Field

from api.http.schemas import JobId, ResponseModel
from frs.spec_model import Spec
from store.jobs.retention import Content


class CleanRequest(Spec):
    """What to remove, and which run groups to keep: a job with its baselines, seed variants and comparison."""

    contents: Annotated[tuple[Content, ...], Field(min_length=1, max_length=len(Content))]
    """`jobs` with everything that belongs to them; or only training `checkpoints`, or `metrics`."""
    older_than_days: Annotated[float, Field(ge=0, le=36_500)]
    """Keep run groups with a job that has not ended, or ended within these days."""
    keep_last: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Keep the newest run groups of each owner, this many."""
    keep_tag: Annotated[str, Field(min_length=1, max_length=100)] = "keep"
    """Keep run groups with a job that has this tag."""
    all_owners: bool = False
    """Remove from all owners; needs a key with the scope `admin`."""
    after: JobId | None = None
    """`next_after` of the previous answer, to continue there."""
    dry_run: bool = True
    """Report what would be removed, and remove nothing."""


class CleanResult(ResponseModel):
    """What was removed, or would be."""

    dry_run: bool
    groups: int
    """Number of run groups that the rules do not keep; at most 500 in one request."""
    next_after: str | None
    """Send the request again with this `after` for the next run groups; null: there are none."""
    skipped: int
    """Number of run groups that another job still needs."""
    job_ids: list[str]
    """Removed jobs."""
    checkpoints: int
    """Number of removed training checkpoints, beside those of removed jobs."""
    metrics: int
    """Number of removed metric values, beside those of removed jobs."""
    bytes: int
    """Size of the removed files."""
