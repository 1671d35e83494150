"""Why a job waits: the stored reason if there is one, otherwise derived from its dependencies and the workers."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Row, or_, select
from sqlalchemy.orm import Session

from store.db.database import time_of
from store.db.queries import COMPARE, SEED
from store.db.tables import Document, Job, Worker, WorkerRequest
from store.scheduling import worker_registry
from store.scheduling.requirements import FREE_SPACE, probe_job, requirements_of, spec_key
from store.states import WAITING_HINTS, JobStatus, RequestStatus, WaitingReason

_MAX_WORKERS_NAMED = 3
"""Maximum number of workers that a message names."""


@dataclass(frozen=True)
class StatusReason:
    """Why a job or a probe waits."""

    code: WaitingReason
    message: str
    since: float
    """Seconds since 1970 UTC."""

    @property
    def hint(self) -> str:
        """The next step for the user."""
        return WAITING_HINTS[self.code]


def waiting_reason(session: Session, job: Job) -> StatusReason | None:
    """Return why the job waits, or None if it is not queued."""
    return waiting_reasons(session, [job]).get(job.id)


def waiting_reasons(session: Session, jobs: Sequence[Job]) -> dict[str, StatusReason]:
    """Return why the queued ones of the jobs wait, by id.

    Three queries for any number of jobs; more if every worker misses requirements.
    """
    queued = [job for job in jobs if job.status == JobStatus.QUEUED]
    at = time_of(session) if any(job.not_before for job in queued) else 0.0
    reasons = {job.id: reason for job in queued if (reason := _stored_reason(job, at))}
    without_reason = [job for job in queued if job.id not in reasons]
    teachers, runs = _teachers(session, without_reason), _unfinished_runs(session, without_reason)
    workers = worker_registry.alive(session) if without_reason else []
    for job in without_reason:
        code, message = (
            _teacher_reason(teachers.get(job.teacher_job_id or ""))
            or _runs_reason(runs.get(job.parent_id or "", []) if job.kind == COMPARE else [])
            or worker_reason(session, job, workers)
        )
        reasons[job.id] = StatusReason(code, message, job.queued_at or job.created_at)
    return reasons


def probe_waiting_reason(session: Session, worker_request: WorkerRequest) -> StatusReason | None:
    """Return why the probe of a plan waits, or None if it is not queued."""
    if worker_request.status != RequestStatus.QUEUED:
        return None
    at = time_of(session) if worker_request.not_before else 0.0
    if reason := _stored_reason(worker_request, at):
        return reason
    job = probe_job(worker_request.id, worker_request.request, worker_request.owner)
    return StatusReason(*worker_reason(session, job, worker_registry.alive(session)), worker_request.created_at)


def worker_reason(session: Session, job: Job, workers: Sequence[Worker]) -> tuple[WaitingReason, str]:
    """Return reason and message for a job that waits only for a worker; `workers` are those alive."""
    nodes = job.nodes or 1
    for_nodes = [worker for worker in workers if worker.nodes == nodes]
    if not for_nodes and nodes > 1:
        return WaitingReason.NODES, f"The job runs on {nodes} hosts; a worker for {nodes} hosts claims it."
    if not for_nodes:
        message = "All workers are for jobs on several hosts." if workers else "No worker is running."
        return WaitingReason.WORKER, message
    max_gpus = max(len(worker.gpus) for worker in for_nodes)
    if (job.devices or 0) > max_gpus:
        return WaitingReason.DEVICE, f"The job requests {job.devices} GPUs; no worker has more than {max_gpus}."
    large_enough = [worker for worker in for_nodes if len(worker.gpus) >= (job.devices or 0)]
    return _missing_files_reason(session, job, large_enough) or (
        WaitingReason.WORKER,
        "A worker claims the job once it has free capacity and no job precedes it in the queue.",
    )


def _missing_files_reason(session: Session, job: Job, workers: Sequence[Worker]) -> tuple[WaitingReason, str] | None:
    """Return the reason if every one of the workers has reported a missing requirement of the job, else None."""
    reported = [_reported_missing(worker, job) for worker in workers]
    if not all(reported):
        return None
    reasons = {item.key: item.reason for item in (FREE_SPACE, *requirements_of(session, job))}
    reasons[spec_key(job.id)] = WaitingReason.SPEC
    missing = [[entry for entry in entries if entry["key"] in reasons] for entries in reported]
    if not all(missing):
        return None
    sentences = {
        f"{worker.name or worker.host} {entry['message']}": None
        for worker, [entry, *_] in zip(workers, missing, strict=True)
    }
    others = len(sentences) - _MAX_WORKERS_NAMED
    suffix = f" And {others} more workers." if others > 0 else ""
    return reasons[missing[0][0]["key"]], " ".join([*sentences][:_MAX_WORKERS_NAMED]) + suffix


def _reported_missing(worker: Worker, job: Job) -> list[Document]:
    """Return the worker's entries for queued jobs, or, for a job that is only planned, all of its entries."""
    is_planned = job.id is None
    return [entry for entry in worker.missing or [] if is_planned or entry["owner"] is not None]


def _stored_reason(row: Job | WorkerRequest, at: float) -> StatusReason | None:
    """Return why no worker claims the row until `not_before`; None if that time is over at `at`."""
    if row.status_reason_code is None or row.status_reason_since is None or (row.not_before or 0.0) <= at:
        return None
    return StatusReason(row.status_reason_code, row.status_reason_message or "", row.status_reason_since)


def _teacher_reason(teacher: Row[str, str | None, JobStatus] | None) -> tuple[WaitingReason, str] | None:
    if teacher is None or teacher.status == JobStatus.SUCCEEDED:
        return None
    return (
        WaitingReason.DETECTOR,
        f"Job {teacher.name or teacher.id}, whose student this job uses, is {teacher.status}.",
    )


def _runs_reason(unfinished: Sequence[str]) -> tuple[WaitingReason, str] | None:
    if not unfinished:
        return None
    message = f"Runs to compare that have not succeeded yet: {len(unfinished)}, first job {unfinished[0]}."
    return WaitingReason.RUNS, message


def _teachers(session: Session, jobs: Sequence[Job]) -> dict[str, Row[str, str | None, JobStatus]]:
    """Return id, name and status of the jobs that train the teachers, by id."""
    ids = {job.teacher_job_id for job in jobs if job.teacher_job_id}
    if not ids:
        return {}
    query = select(Job.id, Job.name, Job.status).where(Job.id.in_(ids))
    return {teacher.id: teacher for teacher in session.execute(query)}


def _unfinished_runs(session: Session, jobs: Sequence[Job]) -> dict[str, list[str]]:
    """Return the names of the runs that comparisons among the jobs wait for, by the id of the comparison's parent.

    The parent comes first, then its children by seed.
    """
    parents = {job.parent_id for job in jobs if job.kind == COMPARE and job.parent_id}
    if not parents:
        return {}
    relatives = or_(Job.id.in_(parents), Job.parent_id.in_(parents))
    unfinished = (relatives, Job.kind != COMPARE, Job.status != JobStatus.SUCCEEDED)
    by_seed = (Job.parent_id.is_not(None), SEED, Job.id)
    runs: dict[str, list[str]] = defaultdict(list)
    query = select(Job.id, Job.name, Job.parent_id).where(*unfinished).order_by(*by_seed)
    for id, name, parent_id in session.execute(query):
        runs[parent_id if parent_id in parents else id].append(name or id)
    return runs
