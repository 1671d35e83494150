"""Model of the store's job lifecycle in plain Python: no SQL, no clock, no concurrency."""

import math
from dataclasses import dataclass, field

from store.states import ALLOWED, MAX_WITHOUT_PROGRESS, Action, AttemptEnd, EndReason, JobStatus

CHECKPOINTS_KEPT = 2
UNSUCCESSFUL = {JobStatus.FAILED, JobStatus.CANCELLED}


class ModelError(Exception):
    """An operation that the store must reject; the message is the name of the store's exception."""


@dataclass
class ModelJob:
    """The expected state of one job."""

    id: str
    kind: str = "train"
    owner: str = "admin"
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
    cancel_number: int = 0
    """Number of the accepted cancel; jobs that were cancelled together have the same."""
    ends: dict[int, AttemptEnd | None] = field(default_factory=dict)
    """End of each attempt; None while it runs."""
    checkpoints: list[tuple[int, int]] = field(default_factory=list)
    """Attempt and step of each checkpoint."""
    metrics: dict[int, float] = field(default_factory=dict)
    """Value of the metric at each step."""

    @property
    def step(self) -> int:
        """The last step that has metrics."""
        return max(self.metrics, default=0)

    @property
    def committed_step(self) -> int:
        """The step of the newest checkpoint."""
        return max(self.checkpoints, default=(0, 0))[1]


@dataclass
class Model:
    """The expected state of the store."""

    jobs: dict[str, ModelJob] = field(default_factory=dict)
    """In order of creation."""
    served: list[str] = field(default_factory=list)
    """Owners by the time their job was claimed last, the longest ago first."""
    cancels: int = 0
    """Number of accepted cancels."""

    def job_of_request(self, owner: str, key: str | None, digest: str) -> ModelJob | None:
        """Return the job that this request created earlier. Raises ModelError if the key has another digest."""
        job = next((job for job in self.jobs.values() if key and (job.owner, job.key) == (owner, key)), None)
        if job and job.digest != digest:
            raise ModelError("IdempotencyKeyReused")
        return job

    def next_job(self) -> ModelJob | None:
        """Return the job to claim next: of the highest priority, the oldest of the owner served least recently."""
        runnable = [job for job in self.jobs.values() if self.is_runnable(job)]
        return min(runnable, key=lambda job: (-job.priority, *self._turn(job.owner)), default=None)

    def is_runnable(self, job: ModelJob) -> bool:
        """Return whether a worker may claim the job."""
        ready = all(dependency.status == JobStatus.SUCCEEDED for dependency in self.dependencies(job))
        return job.status == JobStatus.QUEUED and not job.delayed and ready and not self._has_failed_dependency(job)

    def dependencies(self, job: ModelJob) -> list[ModelJob]:
        """Return the jobs that must succeed before this job runs."""
        if job.kind == "compare":
            return [run for run in self.jobs.values() if job.parent in (run.id, run.parent) and run is not job]
        return [self.jobs[job.teacher]] if job.teacher else []

    def claim(self, job: ModelJob) -> None:
        """Start the next attempt of the job."""
        job.status, job.attempt, job.expired = JobStatus.RUNNING, job.attempt + 1, False
        job.ends[job.attempt] = None
        self.served = [*(owner for owner in self.served if owner != job.owner), job.owner]

    def leased_job(self, job_id: str, attempt: int) -> ModelJob:
        """Return the job if this attempt of it runs. Raises ModelError otherwise."""
        job = self.jobs.get(job_id)
        if job is None or (job.status, job.attempt) != (JobStatus.RUNNING, attempt):
            raise ModelError("LeaseLost")
        return job

    def finish(self, job: ModelJob, status: JobStatus, reason: EndReason) -> None:
        """End the job; a pending cancel takes precedence, and without one, a cancelled attempt returns to the queue.

        A job that succeeds loses its checkpoints.
        """
        if Action.CANCEL in job.requests:
            status, reason = JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER
        elif status == JobStatus.CANCELLED:
            self.requeue(job, AttemptEnd.RELEASED)
            return
        if status == JobStatus.SUCCEEDED:
            job.checkpoints = []
        job.ends[job.attempt] = AttemptEnd(status)
        job.status, job.end_reason = status, reason

    def requeue(self, job: ModelJob, end: AttemptEnd, *, delayed: bool = False) -> None:
        """End the attempt and put the job back into the queue, unless a request or its failures prevent that."""
        job.ends[job.attempt] = end
        if Action.CANCEL in job.requests:
            job.status, job.end_reason = JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER
        elif self._count_without_progress(job, end) >= MAX_WITHOUT_PROGRESS.get(end, math.inf):
            job.status, job.end_reason = JobStatus.FAILED, EndReason.POISON
        elif Action.PAUSE in job.requests:
            self._move_to(job, JobStatus.PAUSED)
        else:
            job.status, job.delayed = JobStatus.QUEUED, delayed

    def reap(self) -> None:
        """Requeue the running jobs whose lease has expired."""
        for job in self.jobs.values():
            if job.status == JobStatus.RUNNING and job.expired:
                self.requeue(job, AttemptEnd.LOST)

    def fail_dependents(self) -> None:
        """Fail the queued jobs that depend on a job that failed or was cancelled, and recursively theirs."""
        queued = [job for job in self.jobs.values() if job.status == JobStatus.QUEUED]
        while failing := [job for job in queued if self._has_failed_dependency(job)]:
            for job in failing:
                job.status, job.end_reason, job.delayed = JobStatus.FAILED, EndReason.DEPENDENCY_FAILED, False
            queued = [job for job in queued if job not in failing]

    def checkpoint(self, job: ModelJob) -> None:
        """Record a checkpoint at the job's step and drop the oldest."""
        job.checkpoints = sorted({*job.checkpoints, (job.attempt, job.step)})[-CHECKPOINTS_KEPT:]

    def act(self, action: Action, job_id: str) -> None:
        """Apply a user's action. Raises ModelError if the store must reject it."""
        if job_id not in self.jobs:
            raise ModelError("JobNotFound")
        job = self.jobs[job_id]
        if job.status not in ALLOWED[action]:
            raise ModelError("ActionNotAllowed")
        getattr(self, f"_{action}")(job)

    def _has_failed_dependency(self, job: ModelJob) -> bool:
        parents = [self.jobs[job.parent]] if job.parent else []
        return any(other.status in UNSUCCESSFUL for other in [*self.dependencies(job), *parents])

    def _turn(self, owner: str) -> tuple[int, str]:
        return (self.served.index(owner) if owner in self.served else -1), owner

    def _cancel(self, job: ModelJob) -> None:
        if Action.CANCEL not in job.requests:
            self.cancels += 1
            job.cancel_number = self.cancels
        for member in [job, *(child for child in self.jobs.values() if child.parent == job.id)]:
            if member is job or (member.status in ALLOWED[Action.CANCEL] and Action.CANCEL not in member.requests):
                self._cancel_member(member, job.cancel_number)

    def _cancel_member(self, job: ModelJob, number: int) -> None:
        job.requests.add(Action.CANCEL)
        job.cancel_number = number
        if job.status != JobStatus.RUNNING:
            job.status, job.end_reason, job.delayed = JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER, False

    def _stop(self, job: ModelJob) -> None:
        job.requests.add(Action.STOP)

    def _pause(self, job: ModelJob) -> None:
        job.requests.add(Action.PAUSE)
        if job.status == JobStatus.QUEUED:
            self._move_to(job, JobStatus.PAUSED)

    def _resume(self, job: ModelJob) -> None:
        job.failures_reset_at_attempt = job.attempt
        self._requeue_with_dependents(job)

    def _retry(self, job: ModelJob) -> None:
        job.checkpoints, job.metrics = [], {}
        self._resume(job)

    def _delete(self, job: ModelJob) -> None:
        run_group = [job, *(child for child in self.jobs.values() if child.parent == job.id)]
        others = [other for other in self.jobs.values() if other not in run_group and not other.status.is_terminal]
        in_use = any(member in self.dependencies(other) for other in others for member in run_group)
        if in_use or not all(member.status.is_terminal for member in run_group):
            raise ModelError("JobInUse")
        for member in run_group:
            del self.jobs[member.id]
        for other in self.jobs.values():
            other.teacher = other.teacher if other.teacher in self.jobs else None

    def _requeue_with_dependents(self, job: ModelJob) -> None:
        cancelled = {Action.CANCEL} & job.requests
        self._move_to(job, JobStatus.QUEUED)
        for member in [child for child in self.jobs.values() if child.parent == job.id]:
            if cancelled & member.requests and member.cancel_number == job.cancel_number:
                self._withdraw_cancel(member)
        for other in self.jobs.values():
            dependency_failed = (other.status, other.end_reason) == (JobStatus.FAILED, EndReason.DEPENDENCY_FAILED)
            if dependency_failed and (job in self.dependencies(other) or other.parent == job.id):
                self._requeue_with_dependents(other)

    def _withdraw_cancel(self, job: ModelJob) -> None:
        if job.status == JobStatus.RUNNING:
            job.requests.discard(Action.CANCEL)
        else:
            job.failures_reset_at_attempt = job.attempt
            self._requeue_with_dependents(job)

    def _move_to(self, job: ModelJob, status: JobStatus) -> None:
        job.status, job.end_reason, job.delayed = status, None, False
        job.requests.clear()

    def _count_without_progress(self, job: ModelJob, lost_or_crashed: AttemptEnd) -> int:
        since = max([job.failures_reset_at_attempt, *(attempt for attempt, _ in job.checkpoints)])
        return sum(end == lost_or_crashed for number, end in job.ends.items() if number > since)
