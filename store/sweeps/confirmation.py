"""The confirming job of a sweep: the chosen setting on seeds that took no part in the choice."""

from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session

from frs.evaluation.verdict import Comparison
from store.db import queries
from store.db.sweep_tables import Sweep
from store.db.tables import Job
from store.states import JobStatus
from store.sweeps import trials

CAVEAT = (
    "The setting was chosen by its mAP on the tuning seeds, so its mAP there is optimistic; the verdict is over seeds "
    "that took no part in the choice. Both are measured on the same validation images."
)


class Result(BaseModel):
    """The result of the confirming job."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    mAP: float | None
    """mAP of the student, 0 to 1; mean over the new seeds."""
    comparison: Comparison | None
    """The gain over the baseline with its intervals; null for kind `train`, which has no baseline."""


def jobs_of(session: Session, sweep: Sweep) -> list[Job]:
    """Return the confirming job and the other jobs of its run group; empty before it is posted."""
    job = session.get(Job, sweep.confirm_job_id, populate_existing=True) if sweep.confirm_job_id else None
    return [job, *queries.children(session, job.id)] if job else []


def failed_job(jobs: list[Job]) -> Job | None:
    """Return the first job of the run group that has ended without success; None if there is none."""
    return next((job for job in jobs if job.status in (JobStatus.FAILED, JobStatus.CANCELLED)), None)


def result(session: Session, jobs: list[Job]) -> Result | None:
    """Return the result once the last job of the run group has succeeded; None before.

    Raises ValidationError if this version cannot read the comparison, which a newer one has stored.
    """
    if not jobs or any(job.status != JobStatus.SUCCEEDED for job in jobs):
        return None
    comparisons = [job.facts["comparison"] for job in jobs if job.kind == queries.COMPARE]
    if not comparisons:
        return Result(mAP=trials.student_score(session, jobs[0].id), comparison=None)
    comparison = Comparison.model_validate(comparisons[0])
    mean = sum(pair.student for pair in comparison.pairs) / len(comparison.pairs)
    return Result(mAP=mean, comparison=comparison)
