"""Simulation of the service on a virtual clock: users, workers and database fail at random, determined by a seed.

The store and the artifacts are the real ones. Workers follow `worker.dispatch.dispatcher` and the supervisor, heartbeat
and recorder of `worker.attempt`: they claim, renew, stop at the fence, write under their lease and finish. Some run
permanently; others are started by a scheduler for one job (`--once`). Threads and processes are left out.
"""

import hashlib
import heapq
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from frs import events
from frs.errors import FrsError
from frs.spec import JobSpec
from store.artifacts.folder import ArtifactFolder
from store.db.database import Database
from store.db.tables import Base, Dataset, Job
from store.errors import AlreadySubmitted, LeaseLost
from store.jobs import actions, lifecycle, recording
from store.jobs.checkpoints import newest_checkpoints, prune_checkpoints
from store.jobs.lease import Lease, RequestedAction
from store.scheduling import queue
from store.scheduling.queue import CPU_ONLY, NO_EXCLUSIONS
from store.states import EndReason, JobStatus

SPEC = JobSpec.model_validate({"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}})
STEPS, CHECKPOINT_EVERY, TICK = 6, 2, 8.0
HEARTBEAT, FENCE, LEASE, POLL, GRACE = 10.0, 45.0, 60.0, 20.0, 30.0
MAX_WORKERS = 4
FAULT_SECONDS = 200.0
"""Duration of user actions and faults; afterwards the remaining jobs finish without faults."""
REPEAT_SECONDS = 20.0
"""Longest delay before a user repeats a post without a response. Workers poll until the last repetition."""
MAX_SECONDS = 6000.0


class DatabaseUnavailable(Exception):
    """The database did not answer; the transaction may be committed or not."""


class Clock:
    """The database's clock; it advances by 1 us per reading."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now


class SimulatedService:
    def __init__(self, seed: int, database: Database, clock: Clock, folder: Path) -> None:
        """Empty the database, whose clock is `clock`, and add a data set."""
        self.random = random.Random(seed)
        self.database, self.clock = database, clock
        self.started = clock.now = 1e9  # the same for every seed, so that a seed can be replayed alone
        self.artifacts = ArtifactFolder(folder / "artifacts")
        self.folder = folder
        self.acknowledged: list[str] = []
        self.deleted: list[str] = []
        self.accepted: list[tuple[str, int]] = []
        self.last_request: dict[str, str] = {}
        """The last committed cancel, resume or retry of each job."""
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._queued = count()
        self._unavailable_until = 0.0
        paths = dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations"), "x")
        self.do(_delete_all_rows, without_faults=True)
        self.do(lambda session: session.add(Dataset(id="ds_shapes", name="shapes", **paths)), without_faults=True)

    @property
    def now(self) -> float:
        return self.clock.now

    @property
    def has_faults(self) -> bool:
        return self.now < self.started + FAULT_SECONDS

    @property
    def expects_posts(self) -> bool:
        return self.now < self.started + FAULT_SECONDS + 2 * REPEAT_SECONDS

    @property
    def has_work(self) -> bool:
        return self.expects_posts or any(not job.status.is_terminal for job in self.jobs())

    def happens(self, probability: float) -> bool:
        return self.has_faults and self.random.random() < probability

    def schedule(self, seconds: float, step: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + seconds, next(self._queued), step))

    def run(self) -> None:
        while self._queue:
            at, _, step = heapq.heappop(self._queue)
            self.clock.now = max(self.now, at)
            assert self.now < self.started + MAX_SECONDS, "the simulation does not end"
            step()

    def do(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        on_commit: Callable[[Any], object] = lambda _: None,
        without_faults: bool = False,
        **keywords: Any,
    ) -> Any:
        """`on_commit` is called even if the response is lost. Raises DatabaseUnavailable."""
        if not without_faults and self.happens(0.01):
            self._unavailable_until = self.now + self.random.uniform(5, 120)
        if self.now < self._unavailable_until and self.has_faults and not without_faults:
            raise DatabaseUnavailable
        with self.database.write() as session:
            result = function(session, *arguments, **keywords)
            if not without_faults and self.happens(0.02):
                raise DatabaseUnavailable
            session.commit()
        on_commit(result)
        if not without_faults and self.happens(0.03):
            raise DatabaseUnavailable
        return result

    def jobs(self) -> list[Job]:
        with self.database.read() as session:
            return [*session.query(Job).order_by(Job.created_at)]


@dataclass
class User:
    """A user who repeats each request until it is answered."""

    service: SimulatedService
    name: str
    posts: int = 0

    def step(self) -> None:
        """Post a job or act on one, and schedule the next step."""
        service = self.service
        if not service.has_faults:
            self._finish()
            return
        steps = [self._submit] * 3 + [self._act] * 5 if self.posts < 2 else [self._act]
        service.random.choice(steps)()
        service.schedule(service.random.uniform(1, 40), self.step)

    def _submit(self) -> None:
        self.posts += 1
        jobs = self.service.acknowledged
        teacher = self.service.random.choice(jobs) if jobs and self.service.happens(0.3) else None
        self._post(f"{self.name}-{self.posts}", teacher)

    def _post(self, key: str, teacher: str | None) -> None:
        idempotency = lifecycle.Idempotency(key, "digest")
        try:
            job = self.service.do(
                lifecycle.add,
                SPEC,
                dataset_id="ds_shapes",
                owner=self.name,
                teacher_job_id=teacher,
                idempotency=idempotency,
            )
        except AlreadySubmitted as error:
            self.service.acknowledged.append(error.job_id)
        except IntegrityError:  # the teacher is deleted, so the service rejects the post
            return
        except DatabaseUnavailable:
            self.service.schedule(self.service.random.uniform(1, REPEAT_SECONDS), lambda: self._post(key, teacher))
        else:
            self.service.acknowledged.append(job.id)
            if self.service.happens(0.2):
                self._post(key, teacher)

    def _act(self) -> None:
        if self.service.acknowledged:
            job_id = self.service.random.choice(self.service.acknowledged)
            names = ["cancel", "pause", "resume", "resume", "stop", "retry", "change", "delete"]
            self._request(self.service.random.choice(names), job_id)

    def _request(self, name: str, job_id: str) -> None:
        keywords = {"priority": self.service.random.randint(0, 2)} if name == "change" else {}

        def committed(result: Any) -> None:
            if name in ("cancel", "resume", "retry"):
                self.service.last_request[job_id] = name
            if name in ("retry", "delete"):
                keys = result[1] if name == "retry" else result
                self.service.schedule(self.service.random.uniform(0, 90), lambda: _delete_files(self.service, keys))

        if name == "delete":
            self.service.deleted.append(job_id)
        with suppress(FrsError, DatabaseUnavailable):
            self.service.do(getattr(actions, name), job_id, on_commit=committed, **keywords)

    def _finish(self) -> None:
        for job in self.service.jobs():
            if job.status == JobStatus.PAUSED:
                self.service.do(
                    actions.resume,
                    job.id,
                    on_commit=lambda _, job=job: self.service.last_request.update({job.id: "resume"}),
                )
        if any(not job.status.is_terminal for job in self.service.jobs()):
            self.service.schedule(60, self.step)


@dataclass
class Attempt:
    """State of one attempt: of its supervisor, heartbeat and trainer."""

    lease: Lease
    fence_at: float
    """Time on the worker's own clock."""
    renew_at: float
    step: int = -1
    pending: list[recording.PersistedEvent] = field(default_factory=list)
    checkpoints: list[events.Checkpoint] = field(default_factory=list)
    finalizer: Callable[..., Any] | None = None


class Worker:
    """A worker with one slot, whose own clock is off by up to 5.8 days."""

    def __init__(self, service: SimulatedService, name: str) -> None:
        self.service, self.name = service, name
        self.offset = service.random.uniform(-5e5, 5e5)
        self.attempt: Attempt | None = None

    @property
    def clock(self) -> float:
        return self.service.now + self.offset

    def turn(self) -> None:
        service = self.service
        if service.happens(0.03):
            self._die()
        elif service.happens(0.04):  # the process is suspended, perhaps past its lease
            service.schedule(service.random.uniform(20, 200), self.turn_after_suspension)
        elif self.attempt is None:
            self._claim()
        else:
            self._continue(self.attempt)

    def turn_after_suspension(self) -> None:
        """Continue after a suspension: a thread may write before another one reads the clock."""
        if self.attempt and self.service.random.random() < 0.5:
            self._flush(self.attempt)
        self.service.schedule(0, self.turn)

    def _die(self) -> None:
        """End the process; another one starts."""
        self.attempt = None
        self.service.schedule(self.service.random.uniform(1, 90), self.turn)

    def _claim(self) -> None:
        service = self.service
        try:
            _reap(service)
            lease = service.do(lifecycle.claim, self.name, LEASE)
        except DatabaseUnavailable:
            lease = None
        if lease:
            self._start(lease)
        elif service.has_work:
            service.schedule(POLL, self.turn)

    def _start(self, lease: Lease) -> None:
        self.attempt = Attempt(lease, self.clock + FENCE, self.clock + HEARTBEAT)
        self.service.schedule(TICK, self.turn)

    def _continue(self, attempt: Attempt) -> None:
        if self.clock > attempt.fence_at:
            attempt.finalizer = attempt.finalizer or self._requeued(attempt_counts=False)
        elif self.clock >= attempt.renew_at:
            self._renew(attempt)
        if attempt is self.attempt and attempt.finalizer is None:
            self._train(attempt)
        if attempt is self.attempt:
            self._flush(attempt)
        self.service.schedule(TICK if self.attempt else 0.0, self.turn)

    def _renew(self, attempt: Attempt) -> None:
        began = self.clock
        try:
            renewal = self.service.do(lifecycle.renew, attempt.lease, LEASE)
        except LeaseLost:
            self.attempt = None
        except DatabaseUnavailable:
            pass
        else:
            attempt.renew_at, attempt.fence_at = began + HEARTBEAT, began + FENCE
            self._apply_requested_action(attempt, renewal.requested_action)

    def _apply_requested_action(self, attempt: Attempt, requested_action: RequestedAction) -> None:
        if requested_action is RequestedAction.CANCEL:
            attempt.pending, attempt.checkpoints = [], []
            attempt.finalizer = _finished(JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER)
        elif attempt.finalizer:
            return
        elif requested_action is RequestedAction.PAUSE and attempt.step > 0:
            attempt.checkpoints.append(_write_checkpoint(self.service, attempt, "training"))
            attempt.finalizer = self._requeued(attempt_counts=False)
        elif requested_action is RequestedAction.STOP:
            attempt.finalizer = _finished(JobStatus.SUCCEEDED, EndReason.STOPPED_EARLY)

    def _train(self, attempt: Attempt) -> None:
        if self.service.happens(0.04):
            attempt.finalizer = self._requeued(attempt_counts=True)
            return
        if attempt.step < 0:
            self._resume(attempt)
            return
        if attempt.step < STEPS:
            attempt.step += 1
            values = {"train/loss": 1 / attempt.step}
            attempt.pending.append(events.Metrics(step=attempt.step, epoch=0, values=values))
            if attempt.step % CHECKPOINT_EVERY == 0:
                attempt.checkpoints.append(_write_checkpoint(self.service, attempt, "training"))
        if attempt.step == STEPS:
            attempt.checkpoints.append(_write_checkpoint(self.service, attempt, "student"))
            attempt.finalizer = _finished(JobStatus.SUCCEEDED, EndReason.COMPLETED)

    def _resume(self, attempt: Attempt) -> None:
        try:
            checkpoints = self.service.do(newest_checkpoints, attempt.lease.job_id)
        except DatabaseUnavailable:
            return
        attempt.step = checkpoints[0].step if checkpoints else 0
        attempt.pending.append(events.Rewound(to_step=attempt.step))

    def _flush(self, attempt: Attempt) -> None:
        """Write events, checkpoints and end in the trainer's order; the next turn retries after a failure."""
        try:
            if attempt.pending:
                self._write_under_lease(attempt, recording.record, list(attempt.pending))
                attempt.pending = []
            while attempt.checkpoints:
                self._store_checkpoint(attempt, attempt.checkpoints[0])
                attempt.checkpoints.pop(0)
            if attempt.finalizer:
                self._write_under_lease(attempt, attempt.finalizer)
                self.attempt = None
        except LeaseLost:
            self.attempt = None
        except DatabaseUnavailable:
            if self.clock > attempt.fence_at:
                self.attempt = None

    def _store_checkpoint(self, attempt: Attempt, file: events.Checkpoint) -> None:
        key = recording.checkpoint_key(attempt.lease, file)
        self.service.artifacts.put(Path(file.path), key, file.sha256)
        unused_keys: set[str] = set()

        def record(session: Any, lease: Lease) -> None:
            recording.record_checkpoint(session, lease, file, key)
            unused_keys.update(prune_checkpoints(session, lease))

        self._write_under_lease(attempt, record)
        delay = self.service.random.uniform(20, 200) if self.service.happens(0.2) else 0.0
        self.service.schedule(delay, lambda: _delete_files(self.service, unused_keys))

    def _write_under_lease(self, attempt: Attempt, function: Callable[..., Any], *arguments: Any) -> None:
        lease = attempt.lease
        self.service.do(
            function, lease, *arguments, on_commit=lambda _: self.service.accepted.append((lease.job_id, lease.attempt))
        )

    def _requeued(self, *, attempt_counts: bool) -> Callable[..., Any]:
        delay = self.service.random.choice([0.0, 0.0, 30.0])
        return lambda session, lease: lifecycle.requeue(session, lease, delay=delay, attempt_counts=attempt_counts)


class SingleRunWorker(Worker):
    """`python -m worker --once`, started by a scheduler that may kill it; with `job_id`, only for that job."""

    def __init__(self, service: SimulatedService, name: str, job_id: str | None) -> None:
        super().__init__(service, name)
        self.has_claimed = self.has_ended = False
        self._job_id = job_id

    def turn(self) -> None:
        if not self.has_ended:
            super().turn()

    def stop(self) -> None:
        """Receive SIGTERM: return the job with a checkpoint. SIGKILL follows."""
        attempt = self.attempt
        if attempt is None:
            self.kill()
            return
        if attempt.finalizer is None:
            if attempt.step > 0:
                attempt.checkpoints.append(_write_checkpoint(self.service, attempt, "training"))
            attempt.finalizer = self._requeued(attempt_counts=False)
        self.service.schedule(self.service.random.uniform(0, 2 * GRACE), self.kill)

    def kill(self) -> None:
        """End without any further write."""
        self.has_ended, self.attempt = True, None

    def _die(self) -> None:
        self.kill()

    def _claim(self) -> None:
        if self.has_claimed:
            self.kill()
            return
        try:
            lease = self.service.do(lifecycle.claim, self.name, LEASE, self._job_id)
        except DatabaseUnavailable:
            self.service.schedule(POLL, self.turn)
            return
        if lease is None:
            self.kill()
            return
        self.has_claimed = True
        self._start(lease)


class Scheduler:
    """Starts a worker for each job that can be claimed: some twice, some late, and kills some. The API reaps.

    It sees the jobs as `worker.slurm` does. It may forget the workers that it has started, as after a restart.
    """

    def __init__(self, service: SimulatedService) -> None:
        self.service = service
        self.workers: list[SingleRunWorker] = []
        self._names = count()

    def step(self) -> None:
        """Kill and start workers, and schedule the next step."""
        service = self.service
        self.workers = [worker for worker in self.workers if not worker.has_ended]
        self._disturb()
        with suppress(DatabaseUnavailable):
            _reap(service)
            claimable = service.do(queue.peek, CPU_ONLY, NO_EXCLUSIONS, MAX_WORKERS).next
            waiting = [worker for worker in self.workers if not worker.has_claimed]
            for job_id in claimable[: max(0, min(len(claimable) - len(waiting), MAX_WORKERS - len(self.workers)))]:
                for _ in range(1 + service.happens(0.2)):
                    self._start(job_id if service.random.random() < 0.5 else None)
        if service.has_work:
            service.schedule(POLL, self.step)

    def _start(self, job_id: str | None) -> None:
        worker = SingleRunWorker(self.service, f"task-{next(self._names)}", job_id)
        self.workers.append(worker)
        self.service.schedule(self.service.random.uniform(0, 200 if self.service.happens(0.3) else 5), worker.turn)

    def _disturb(self) -> None:
        node_fails = self.service.happens(0.03)
        for worker in self.workers:
            if node_fails or self.service.happens(0.1):
                worker.kill()
            elif self.service.happens(0.1):
                worker.stop()
        if self.service.happens(0.05):
            self.workers = []


def _reap(service: SimulatedService) -> None:
    service.do(lifecycle.requeue_expired)
    service.do(lifecycle.fail_dependents)


def _delete_all_rows(session: Session) -> None:
    for table in reversed(Base.metadata.sorted_tables):
        session.execute(table.delete())


def _finished(status: Any, reason: EndReason) -> Callable[..., Any]:
    return lambda session, lease: lifecycle.finish(session, lease, status, reason)


def _write_checkpoint(service: SimulatedService, attempt: Attempt, kind: Any) -> events.Checkpoint:
    """Write a checkpoint file; as training is deterministic, every attempt writes the same content at a step."""
    data = f"{attempt.lease.job_id} {kind} {attempt.step}".encode()
    path = service.folder / f"{attempt.lease.job_id}_{kind}_{attempt.step}.pth"
    if not path.exists():
        path.write_bytes(data)
    sha256, labels = hashlib.sha256(data).hexdigest(), ("best", "last") if kind == "student" else ()
    return events.Checkpoint(
        kind=kind, path=str(path), sha256=sha256, bytes=len(data), step=attempt.step, epoch=0, labels=labels
    )


def _delete_files(service: SimulatedService, keys: Any) -> None:
    for key in sorted(keys):
        service.artifacts.delete(key)
