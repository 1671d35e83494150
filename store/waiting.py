"""Why a job waits: stored where somebody decided it, otherwise derived from what it waits for."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from store.queries import COMPARE, runs_of
from store.states import JobStatus, WaitingReason
from store.tables import Job


@dataclass(frozen=True)
class StatusReason:
    code: WaitingReason
    message: str
    since: float
    """Seconds since 1970 UTC."""


def waiting_reason(session: Session, job: Job) -> StatusReason | None:
    """Why a queued job waits; None for any other."""
    if job.status != JobStatus.QUEUED:
        return None
    if job.status_reason_code and job.status_reason_since:
        return StatusReason(job.status_reason_code, job.status_reason_message or "", job.status_reason_since)
    teacher = session.get(Job, job.teacher_job_id) if job.teacher_job_id else None
    if teacher and teacher.status != JobStatus.SUCCEEDED:
        message = f"Job {teacher.id}, which trains the teacher, is {teacher.status}."
        return StatusReason(WaitingReason.TEACHER, message, job.created_at)
    waits_for = (
        [run for run in runs_of(session, job) if run.status != JobStatus.SUCCEEDED] if job.kind == COMPARE else []
    )
    if waits_for:
        message = f"{len(waits_for)} of the runs it compares have not ended, first job {waits_for[0].id}."
        return StatusReason(WaitingReason.RUNS, message, job.created_at)
    return StatusReason(WaitingReason.WORKER, "The next free worker takes it.", job.created_at)
