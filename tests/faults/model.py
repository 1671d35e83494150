"""What the store ought to do with jobs, in plain Python: no SQL, no clock, no concurrency."""

from dataclasses import dataclass, field

from store.jobs.transitions import MAX_ATTEMPTS_WITHOUT_PROGRESS
from store.states import ALLOWED, WITHOUT_PROGRESS, Action, AttemptEnd, EndReason, JobStatus

KEPT = 2
LOST = {JobStatus.FAILED, JobStatus.CANCELLED}


class Refused(Exception):
    """What the store says with an exception; its name says which."""


@dataclass
class ModelJob:
    id: str
    kind: str = "train"
    teacher: str | None = None
    parent: str | None = None
    key: str | None = None
    digest: str | None = None
    priority: int = 0
    status: JobStatus = JobStatus.QUEUED
    end_reason: EndReason | None = None
    attempt: int = 0
    failures_reset_at_attempt: int = 0
    expired: bool = False
    delayed: bool = False
    requests: set[Action] = field(default_factory=set)
    ends: dict[int, AttemptEnd | None] = field(default_factory=dict)
    checkpoints: list[tuple[int, int]] = field(default_factory=list)
    """Attempt and step."""
    metrics: dict[int, float] = field(default_factory=dict)
    """By step."""

    @property
    def step(self) -> int:
        return max(self.metrics, default=0)

    @property
    def committed(self) -> int:
        return max(self.checkpoints, default=(0, 0))[1]


@dataclass
class Model:
    jobs: dict[str, ModelJob] = field(default_factory=dict)
    """In the order they were made."""

    def repeated(self, key: str | None, digest: str) -> ModelJob | None:
        """The job made by this very request. Raises Refused where the key came with another one."""
        earlier = next((job for job in self.jobs.values() if key and job.key == key), None)
        if earlier and earlier.digest != digest:
            raise Refused("IdempotencyKeyReused")
        return earlier

    def next_in_line(self) -> ModelJob | None:
        runnable = [job for job in self.jobs.values() if self.can_run(job)]
        return max(runnable, key=lambda job: job.priority, default=None)  # the oldest of the most urgent

    def can_run(self, job: ModelJob) -> bool:
        ready = all(needed.status == JobStatus.SUCCEEDED for needed in self.needs(job))
        return job.status == JobStatus.QUEUED and not job.delayed and ready

    def needs(self, job: ModelJob) -> list[ModelJob]:
        if job.kind == "compare":
            return [run for run in self.jobs.values() if job.parent in (run.id, run.parent) and run is not job]
        return [self.jobs[job.teacher]] if job.teacher else []

    def claim(self, job: ModelJob) -> None:
        job.status, job.attempt, job.expired = JobStatus.RUNNING, job.attempt + 1, False
        job.ends[job.attempt] = None

    def held(self, job_id: str, attempt: int) -> ModelJob:
        job = self.jobs.get(job_id)
        if job is None or (job.status, job.attempt) != (JobStatus.RUNNING, attempt):
            raise Refused("LeaseLost")
        return job

    def settle(self, job: ModelJob, status: JobStatus, reason: EndReason) -> None:
        if Action.CANCEL in job.requests:
            status, reason = JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER
        job.ends[job.attempt] = AttemptEnd(status)
        job.status, job.end_reason = status, reason

    def give_back(self, job: ModelJob, how: AttemptEnd, *, delayed: bool = False) -> None:
        job.ends[job.attempt] = how
        if Action.CANCEL in job.requests:
            job.status, job.end_reason = JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER
        elif how in WITHOUT_PROGRESS and self._died_in_vain(job) >= MAX_ATTEMPTS_WITHOUT_PROGRESS:
            job.status, job.end_reason = JobStatus.FAILED, EndReason.POISON
        elif Action.PAUSE in job.requests:
            self._leave(job, JobStatus.PAUSED)
        else:
            job.status, job.delayed = JobStatus.QUEUED, delayed

    def reap(self) -> None:
        for job in self.jobs.values():
            if job.status == JobStatus.RUNNING and job.expired:
                self.give_back(job, AttemptEnd.LOST)

    def fail_orphans(self) -> None:
        waiting = [job for job in self.jobs.values() if job.status == JobStatus.QUEUED]
        for job in [job for job in waiting if any(needed.status in LOST for needed in self.needs(job))]:
            job.status, job.end_reason, job.delayed = JobStatus.FAILED, EndReason.DEPENDENCY_FAILED, False

    def checkpoint(self, job: ModelJob) -> None:
        job.checkpoints = sorted({*job.checkpoints, (job.attempt, job.step)})[-KEPT:]

    def act(self, action: Action, job_id: str) -> None:
        if job_id not in self.jobs:
            raise Refused("JobNotFound")
        job = self.jobs[job_id]
        if job.status not in ALLOWED[action]:
            raise Refused("ActionNotAllowed")
        getattr(self, f"_{action}")(job)

    def _cancel(self, job: ModelJob) -> None:
        job.requests.add(Action.CANCEL)
        if job.status != JobStatus.RUNNING:
            job.status, job.end_reason, job.delayed = JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER, False

    def _stop(self, job: ModelJob) -> None:
        job.requests.add(Action.STOP)

    def _pause(self, job: ModelJob) -> None:
        job.requests.add(Action.PAUSE)
        if job.status == JobStatus.QUEUED:
            self._leave(job, JobStatus.PAUSED)

    def _resume(self, job: ModelJob) -> None:
        job.failures_reset_at_attempt = job.attempt
        self._back_with_dependents(job)

    def _retry(self, job: ModelJob) -> None:
        job.checkpoints, job.metrics = [], {}
        self._resume(job)

    def _delete(self, job: ModelJob) -> None:
        run_group = [job, *(child for child in self.jobs.values() if child.parent == job.id)]
        others = [other for other in self.jobs.values() if other not in run_group and not other.status.is_terminal]
        needed = any(member in self.needs(other) for other in others for member in run_group)
        if needed or not all(member.status.is_terminal for member in run_group):
            raise Refused("JobInUse")
        for member in run_group:
            del self.jobs[member.id]
        for other in self.jobs.values():
            other.teacher = other.teacher if other.teacher in self.jobs else None

    def _back_with_dependents(self, job: ModelJob) -> None:
        self._leave(job, JobStatus.QUEUED)
        for other in self.jobs.values():
            orphaned = (other.status, other.end_reason) == (JobStatus.FAILED, EndReason.DEPENDENCY_FAILED)
            if orphaned and job in self.needs(other):
                self._back_with_dependents(other)

    def _leave(self, job: ModelJob, status: JobStatus) -> None:
        job.status, job.end_reason, job.delayed = status, None, False
        job.requests.clear()

    def _died_in_vain(self, job: ModelJob) -> int:
        since = max([job.failures_reset_at_attempt, *(attempt for attempt, _ in job.checkpoints)])
        return sum(end in WITHOUT_PROGRESS for number, end in job.ends.items() if number > since)
