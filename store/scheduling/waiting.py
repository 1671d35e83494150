"""Why a job waits: stored where somebody decided it, otherwise derived from what it waits for."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Row, or_, select
from sqlalchemy.orm import Session

from store.db.queries import COMPARE
from store.db.tables import Job, Worker, WorkerRequest
from store.scheduling import worker_registry
from store.scheduling.requirements import probe_job, requirements_of, spec_key
from store.states import WAITING_HINTS, JobStatus, RequestStatus, WaitingReason

_TOLD = 3
"""Workers that a message names."""


@dataclass(frozen=True)
class StatusReason:
    code: WaitingReason
    message: str
    since: float
    """Seconds since 1970 UTC."""

    @property
    def hint(self) -> str:
        return WAITING_HINTS[self.code]


def waiting_reason(session: Session, job: Job) -> StatusReason | None:
    """Why a queued job waits; None for any other."""
    return waiting_reasons(session, [job]).get(job.id)


def waiting_reasons(session: Session, jobs: Sequence[Job]) -> dict[str, StatusReason]:
    """Of those that are queued, by id: of many at the price of three look-ups, and of more where every worker missing something."""
    queued = [job for job in jobs if job.status == JobStatus.QUEUED]
    undecided = [job for job in queued if not job.status_reason_code]
    teachers, runs = _teachers(session, undecided), _unfinished_runs(session, undecided)
    workers = worker_registry.alive(session) if undecided else []
    reasons = {job.id: reason for job in queued if (reason := _stored_reason(job))}
    for job in undecided:
        code, message = (
            _teacher_reason(teachers.get(job.teacher_job_id or ""))
            or _runs_reason(runs.get(job.parent_id or "", []) if job.kind == COMPARE else [])
            or worker_reason(session, job, workers)
        )
        reasons[job.id] = StatusReason(code, message, job.created_at)
    return reasons


def probe_waiting_reason(session: Session, worker_request: WorkerRequest) -> StatusReason | None:
    """Why a plan's probe waits; None for one that does not."""
    if worker_request.status != RequestStatus.QUEUED:
        return None
    job = probe_job(worker_request.id, worker_request.request, worker_request.owner)
    return StatusReason(*worker_reason(session, job, worker_registry.alive(session)), worker_request.created_at)


def worker_reason(session: Session, job: Job, workers: Sequence[Worker]) -> tuple[WaitingReason, str]:
    """What is left to wait for once all else is there; `workers`: those alive."""
    if not workers:
        return WaitingReason.WORKER, "No worker is running."
    most = max(len(worker.gpus) for worker in workers)
    if (job.devices or 0) > most:
        return WaitingReason.DEVICE, f"It asks for {job.devices} GPUs; no worker has more than {most}."
    able = [worker for worker in workers if len(worker.gpus) >= (job.devices or 0)]
    return _missing_files_reason(session, job, able) or (WaitingReason.WORKER, "The next free worker takes it.")


def _missing_files_reason(session: Session, job: Job, workers: Sequence[Worker]) -> tuple[WaitingReason, str] | None:
    """Only where every one of them has said that it missing some."""
    if not all(worker.missing for worker in workers):
        return None
    codes = {need.key: need.code for need in requirements_of(session, job)} | {spec_key(job.id): WaitingReason.SPEC}
    missing = [[entry for entry in worker.missing or [] if entry["key"] in codes] for worker in workers]
    if not all(missing):
        return None
    said = {f"{worker.host} {found[0]['message']}": None for worker, found in zip(workers, missing, strict=True)}
    more = f" And {len(said) - _TOLD} more workers." if len(said) > _TOLD else ""
    return codes[missing[0][0]["key"]], " ".join([*said][:_TOLD]) + more


def _stored_reason(job: Job) -> StatusReason | None:
    if job.status_reason_code is None or job.status_reason_since is None:
        return None
    return StatusReason(job.status_reason_code, job.status_reason_message or "", job.status_reason_since)


def _teacher_reason(teacher: Row[str, JobStatus] | None) -> tuple[WaitingReason, str] | None:
    if teacher is None or teacher.status == JobStatus.SUCCEEDED:
        return None
    return WaitingReason.TEACHER, f"Job {teacher.id}, which trains the teacher, is {teacher.status}."


def _runs_reason(unfinished: Sequence[str]) -> tuple[WaitingReason, str] | None:
    if not unfinished:
        return None
    message = f"{len(unfinished)} of the runs it compares have not ended, first job {unfinished[0]}."
    return WaitingReason.RUNS, message


def _teachers(session: Session, jobs: Sequence[Job]) -> dict[str, Row[str, JobStatus]]:
    ids = {job.teacher_job_id for job in jobs if job.teacher_job_id}
    if not ids:
        return {}
    return {teacher.id: teacher for teacher in session.execute(select(Job.id, Job.status).where(Job.id.in_(ids)))}


def _unfinished_runs(session: Session, jobs: Sequence[Job]) -> dict[str, list[str]]:
    """Ids of what comparisons still need, by the job that asked for it: that one first, then its children by seed."""
    parents = {job.parent_id for job in jobs if job.kind == COMPARE and job.parent_id}
    if not parents:
        return {}
    relatives = or_(Job.id.in_(parents), Job.parent_id.in_(parents))
    unfinished = (relatives, Job.kind != COMPARE, Job.status != JobStatus.SUCCEEDED)
    by_seed = (Job.parent_id.is_not(None), Job.spec["schedule"]["seed"].as_integer(), Job.id)
    runs: dict[str, list[str]] = defaultdict(list)
    for id, parent_id in session.execute(select(Job.id, Job.parent_id).where(*unfinished).order_by(*by_seed)):
        runs[parent_id if parent_id in parents else id].append(id)
    return runs
