"""A day in the life of the service on a virtual clock: users, workers and a database that all misbehave, by one seed.

The store and the artifacts are the real ones. Workers follow `worker.dispatch.dispatcher`, `supervisor`, `heartbeat` and
`recorder`: claim, renew, fence themselves, write under their lease, end; only threads and processes are left out.
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
from store.jobs.lease import Lease, RequestedAction
from store.states import EndReason, JobStatus

SPEC = JobSpec.model_validate({"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}})
STEPS, EVERY, TICK = 6, 2, 8.0
HEARTBEAT, FENCE, LEASE, POLL = 10.0, 45.0, 60.0, 20.0
STORMY = 200.0
"""For so many seconds users act and things fail; after it, what is left is finished in peace."""
REPEATED_WITHIN = 20.0
"""A post without an answer: so the last comes that much after the storm, when workers must still look."""
PATIENCE = 6000.0


class ProcessGone(Exception):
    """The database did not answer; nobody knows whether it did as asked."""


class Clock:
    """The database's, which never stands still."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now


class SimulatedService:
    def __init__(self, seed: int, database: Database, clock: Clock, folder: Path) -> None:
        """`database` goes by `clock`; what an earlier world left there goes."""
        self.random = random.Random(seed)
        self.database, self.clock = database, clock
        self.started = clock.now = 1e9  # the same for every seed, however many came before it
        self.artifacts = ArtifactFolder(folder / "artifacts")
        self.folder = folder
        self.acknowledged: list[str] = []
        self.deleted: list[str] = []
        self.accepted: list[tuple[str, int]] = []
        self.last_wish: dict[str, str] = {}
        """By job: the last that was committed of cancel, resume and retry."""
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._turns = count()
        self._away_until = 0.0
        paths = dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations"), "x")
        self.do(_empty, peaceful=True)
        self.do(lambda session: session.add(Dataset(id="ds_shapes", name="shapes", **paths)), peaceful=True)

    @property
    def now(self) -> float:
        return self.clock.now

    @property
    def stormy(self) -> bool:
        return self.now < self.started + STORMY

    @property
    def may_be_asked(self) -> bool:
        return self.now < self.started + STORMY + 2 * REPEATED_WITHIN

    def by_chance(self, share: float) -> bool:
        return self.stormy and self.random.random() < share

    def later(self, seconds: float, step: Callable[[], None]) -> None:
        heapq.heappush(self._later, (self.now + seconds, next(self._turns), step))

    def run(self) -> None:
        while self._later:
            at, _, step = heapq.heappop(self._later)
            self.clock.now = max(self.now, at)
            assert self.now < self.started + PATIENCE, "it does not come to rest"
            step()

    def do(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        then: Callable[[Any], object] = lambda _: None,
        peaceful: bool = False,
        **named: Any,
    ) -> Any:
        """Commits; `then(result)` notes what has been committed, also where the answer is lost. Raises ProcessGone."""
        if not peaceful and self.by_chance(0.01):
            self._away_until = self.now + self.random.uniform(5, 120)
        if self.now < self._away_until and self.stormy and not peaceful:
            raise ProcessGone
        with self.database.write() as session:
            result = function(session, *arguments, **named)
            if not peaceful and self.by_chance(0.02):
                raise ProcessGone
            session.commit()
        then(result)
        if not peaceful and self.by_chance(0.03):
            raise ProcessGone
        return result

    def jobs(self) -> list[Job]:
        with self.database.read() as session:
            return [*session.query(Job).order_by(Job.created_at)]


@dataclass
class User:
    """Asks until answered, then does something else."""

    world: SimulatedService
    name: str
    posts: int = 0

    def step(self) -> None:
        world = self.world
        if not world.stormy:
            self._finish()
            return
        acts = [self._submit] * 3 + [self._act] * 5 if self.posts < 2 else [self._act]
        world.random.selector(acts)()
        world.later(world.random.uniform(1, 40), self.step)

    def _submit(self) -> None:
        self.posts += 1
        known = self.world.acknowledged
        teacher = self.world.random.selector(known) if known and self.world.by_chance(0.3) else None
        self._post(f"{self.name}-{self.posts}", teacher)

    def _post(self, key: str, teacher: str | None) -> None:
        idempotency = lifecycle.Idempotency(key, "digest")
        try:
            job = self.world.do(
                lifecycle.add, SPEC, dataset_id="ds_shapes", teacher_job_id=teacher, idempotency=idempotency
            )
        except AlreadySubmitted as earlier:
            self.world.acknowledged.append(earlier.job_id)
        except IntegrityError:  # the teacher has been deleted: the service refuses such a post
            return
        except ProcessGone:
            self.world.later(self.world.random.uniform(1, REPEATED_WITHIN), lambda: self._post(key, teacher))
        else:
            self.world.acknowledged.append(job.id)
            if self.world.by_chance(0.2):
                self._post(key, teacher)

    def _act(self) -> None:
        if self.world.acknowledged:
            job_id = self.world.random.selector(self.world.acknowledged)
            names = ["cancel", "pause", "resume", "resume", "stop", "retry", "change", "delete"]
            self._ask(self.world.random.selector(names), job_id)

    def _ask(self, name: str, job_id: str) -> None:
        named = {"priority": self.world.random.randint(0, 2)} if name == "change" else {}

        def committed(result: Any) -> None:
            if name in ("cancel", "resume", "retry"):
                self.world.last_wish[job_id] = name
            if name in ("retry", "delete"):
                keys = result[1] if name == "retry" else result
                self.world.later(self.world.random.uniform(0, 90), lambda: _forget(self.world, keys))

        if name == "delete":
            self.world.deleted.append(job_id)
        with suppress(FrsError, ProcessGone):
            self.world.do(getattr(actions, name), job_id, then=committed, **named)

    def _finish(self) -> None:
        for job in self.world.jobs():
            if job.status == JobStatus.PAUSED:
                self.world.do(
                    actions.resume, job.id, then=lambda _, job=job: self.world.last_wish.update({job.id: "resume"})
                )
        if any(not job.status.is_terminal for job in self.world.jobs()):
            self.world.later(60, self.step)


@dataclass
class Attempt:
    """A supervisor, its heartbeat and its trainer."""

    lease: Lease
    fence_at: float
    """On the worker's own clock."""
    renew_at: float
    step: int = -1
    pending: list[recording.PersistedEvent] = field(default_factory=list)
    files: list[events.Checkpoint] = field(default_factory=list)
    ending: Callable[..., Any] | None = None


class Worker:
    """One slot. Its clock is off by days, and nobody may notice."""

    def __init__(self, world: SimulatedService, name: str) -> None:
        self.world, self.name = world, name
        self.offset = world.random.uniform(-5e5, 5e5)
        self.attempt: Attempt | None = None

    @property
    def clock(self) -> float:
        return self.world.now + self.offset

    def turn(self) -> None:
        world = self.world
        if world.by_chance(0.03):  # the process dies, another one starts
            self.attempt = None
            world.later(world.random.uniform(1, 90), self.turn)
        elif world.by_chance(0.04):  # stopped, perhaps past its lease, and woken
            world.later(world.random.uniform(20, 200), self.turn_as_if_nothing_happened)
        elif self.attempt is None:
            self._look_for_work()
        else:
            self._go_on(self.attempt)

    def turn_as_if_nothing_happened(self) -> None:
        """Its threads go on in any order: it may write before it looks at its clock."""
        if self.attempt and self.world.random.random() < 0.5:
            self._write(self.attempt)
        self.world.later(0, self.turn)

    def _look_for_work(self) -> None:
        world = self.world
        try:
            world.do(lifecycle.requeue_expired)
            world.do(lifecycle.fail_dependents)
            lease = world.do(lifecycle.claim, self.name, LEASE)
        except ProcessGone:
            lease = None
        if lease:
            self.attempt = Attempt(lease, self.clock + FENCE, self.clock + HEARTBEAT)
            world.later(TICK, self.turn)
        elif world.may_be_asked or any(not job.status.is_terminal for job in world.jobs()):
            world.later(POLL, self.turn)

    def _go_on(self, attempt: Attempt) -> None:
        if self.clock > attempt.fence_at:
            attempt.ending = attempt.ending or self._given_back(attempt_counts=False)
        elif self.clock >= attempt.renew_at:
            self._renew(attempt)
        if attempt is self.attempt and attempt.ending is None:
            self._train(attempt)
        if attempt is self.attempt:
            self._write(attempt)
        self.world.later(TICK if self.attempt else 0.0, self.turn)

    def _renew(self, attempt: Attempt) -> None:
        began = self.clock
        try:
            renewal = self.world.do(lifecycle.renew, attempt.lease, LEASE)
        except LeaseLost:
            self.attempt = None
        except ProcessGone:
            pass
        else:
            attempt.renew_at, attempt.fence_at = began + HEARTBEAT, began + FENCE
            self._heed(attempt, renewal.requested_action)

    def _heed(self, attempt: Attempt, requested_action: RequestedAction) -> None:
        if requested_action is RequestedAction.CANCEL:
            attempt.pending, attempt.files = [], []
            attempt.ending = _settled(JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER)
        elif attempt.ending:
            return
        elif requested_action is RequestedAction.PAUSE and attempt.step > 0:
            attempt.files.append(_file(self.world, attempt, "training"))
            attempt.ending = self._given_back(attempt_counts=False)
        elif requested_action is RequestedAction.STOP:
            attempt.ending = _settled(JobStatus.SUCCEEDED, EndReason.STOPPED_EARLY)

    def _train(self, attempt: Attempt) -> None:
        if self.world.by_chance(0.04):
            attempt.ending = self._given_back(attempt_counts=True)
            return
        if attempt.step < 0:
            self._begin(attempt)
            return
        if attempt.step < STEPS:
            attempt.step += 1
            values = {"train/loss": 1 / attempt.step}
            attempt.pending.append(events.Metrics(step=attempt.step, epoch=0, values=values))
            if attempt.step % EVERY == 0:
                attempt.files.append(_file(self.world, attempt, "training"))
        if attempt.step == STEPS:
            attempt.files.append(_file(self.world, attempt, "student"))
            attempt.ending = _settled(JobStatus.SUCCEEDED, EndReason.COMPLETED)

    def _begin(self, attempt: Attempt) -> None:
        try:
            kept = self.world.do(recording.newest_checkpoints, attempt.lease.job_id)
        except ProcessGone:
            return
        attempt.step = kept[0].step if kept else 0
        attempt.pending.append(events.Rewound(to_step=attempt.step))

    def _write(self, attempt: Attempt) -> None:
        """In the trainer's order; what could not be written is tried again at the next turn."""
        try:
            if attempt.pending:
                self._do(attempt, recording.record, list(attempt.pending))
                attempt.pending = []
            while attempt.files:
                self._keep(attempt, attempt.files[0])
                attempt.files.pop(0)
            if attempt.ending:
                self._do(attempt, attempt.ending)
                self.attempt = None
        except LeaseLost:
            self.attempt = None
        except ProcessGone:
            if self.clock > attempt.fence_at:
                self.attempt = None

    def _keep(self, attempt: Attempt, file: events.Checkpoint) -> None:
        key = recording.checkpoint_key(attempt.lease, file)
        self.world.artifacts.put(Path(file.path), key, file.sha256)
        unneeded: set[str] = set()

        def rows(session: Any, lease: Lease) -> None:
            recording.record_checkpoint(session, lease, file, key)
            unneeded.update(recording.prune_checkpoints(session, lease))

        self._do(attempt, rows)
        delay = self.world.random.uniform(20, 200) if self.world.by_chance(0.2) else 0.0
        self.world.later(delay, lambda: _forget(self.world, unneeded))

    def _do(self, attempt: Attempt, function: Callable[..., Any], *arguments: Any) -> None:
        lease = attempt.lease
        self.world.do(
            function, lease, *arguments, then=lambda _: self.world.accepted.append((lease.job_id, lease.attempt))
        )

    def _given_back(self, *, attempt_counts: bool) -> Callable[..., Any]:
        delay = self.world.random.selector([0.0, 0.0, 30.0])
        return lambda session, lease: lifecycle.requeue(session, lease, delay=delay, attempt_counts=attempt_counts)


def _empty(session: Session) -> None:
    for table in reversed(Base.metadata.sorted_tables):
        session.execute(table.delete())


def _settled(status: Any, reason: EndReason) -> Callable[..., Any]:
    return lambda session, lease: lifecycle.finish(session, lease, status, reason)


def _file(world: SimulatedService, attempt: Attempt, kind: Any) -> events.Checkpoint:
    """The same content at the same step in every attempt, as training repeats exactly."""
    data = f"{attempt.lease.job_id} {kind} {attempt.step}".encode()
    path = world.folder / f"{attempt.lease.job_id}_{kind}_{attempt.step}.pth"
    if not path.exists():
        path.write_bytes(data)
    sha256, labels = hashlib.sha256(data).hexdigest(), ("best", "last") if kind == "student" else ()
    return events.Checkpoint(
        kind=kind, path=str(path), sha256=sha256, bytes=len(data), step=attempt.step, epoch=0, labels=labels
    )


def _forget(world: SimulatedService, keys: Any) -> None:
    for key in sorted(keys):
        world.artifacts.delete(key)
