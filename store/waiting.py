"""Why a job waits: stored where somebody decided it, otherwise derived from what it waits for."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from store import fleet
from store.queries import COMPARE, runs_of
from store.states import WAITING_HINTS, JobStatus, WaitingReason
from store.tables import Job, Worker


@dataclass(frozen=True)
class StatusReason:
    code: WaitingReason
    message: str
    since: float
    """Seconds since 1970 UTC."""

    @property
    def hint(self) -> str:
        return WAITING_HINTS[self.code]


def waiting_reason(session: Session, job: Job, workers: Sequence[Worker] | None = None) -> StatusReason | None:
    """Why a queued job waits; None for any other. `workers`: those alive, where they were asked for already."""
    if job.status != JobStatus.QUEUED:
        return None
    if job.status_reason_code and job.status_reason_since:
        return StatusReason(job.status_reason_code, job.status_reason_message or "", job.status_reason_since)
    code, message = (
        _needs_a_teacher(session, job)
        or _needs_runs(session, job)
        or _needs_a_worker(job, fleet.alive(session) if workers is None else workers)
    )
    return StatusReason(code, message, job.created_at)


def _needs_a_teacher(session: Session, job: Job) -> tuple[WaitingReason, str] | None:
    teacher = session.get(Job, job.teacher_job_id) if job.teacher_job_id else None
    if teacher is None or teacher.status == JobStatus.SUCCEEDED:
        return None
    return WaitingReason.TEACHER, f"Job {teacher.id}, which trains the teacher, is {teacher.status}."


def _needs_runs(session: Session, job: Job) -> tuple[WaitingReason, str] | None:
    runs = runs_of(session, job) if job.kind == COMPARE else []
    unfinished = [run for run in runs if run.status != JobStatus.SUCCEEDED]
    if not unfinished:
        return None
    return (
        WaitingReason.RUNS,
        f"{len(unfinished)} of the runs it compares have not ended, first job {unfinished[0].id}.",
    )


def _needs_a_worker(job: Job, workers: Sequence[Worker]) -> tuple[WaitingReason, str]:
    if not workers:
        return WaitingReason.WORKER, "No worker is running."
    most = max(len(worker.gpus) for worker in workers)
    if (job.devices or 0) > most:
        return WaitingReason.DEVICE, f"It asks for {job.devices} GPUs; no worker has more than {most}."
    return WaitingReason.WORKER, "The next free worker takes it."
