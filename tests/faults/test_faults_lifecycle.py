"""The job lifecycle against a model in plain Python: after each random operation, store and model agree."""

import functools
from collections.abc import Callable
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import oracle
import pytest
from database_faults import without_fsync
from database_harness import NewDatabase
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from model import Model, ModelError, ModelJob
from sqlalchemy import select, update

from frs import events
from frs.errors import FrsError
from frs.spec import JobSpec, baseline_of, comparison_of
from store.db.database import open_database
from store.db.tables import Attempt, Checkpoint, Dataset, Job, Metric
from store.errors import AlreadySubmitted
from store.jobs import actions, checkpoints, lifecycle, recording
from store.jobs.lease import Lease, RequestedAction
from store.states import Action, AttemptEnd, EndReason, JobStatus

ALONE = JobSpec.model_validate({"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}})
FAMILY = ALONE.model_copy(update={"kind": "distill", "teacher": ALONE.student, "baseline": True})
ENDS = [
    (JobStatus.SUCCEEDED, EndReason.COMPLETED),
    (JobStatus.FAILED, EndReason.DIVERGED),
    (JobStatus.CANCELLED, EndReason.CANCELLED_BY_USER),
]
ANY = st.integers(0, 9)
"""Index of a job or lease, the newest first."""
REQUESTS = {Action.CANCEL: "cancel_requested_at", Action.PAUSE: "pause_requested_at", Action.STOP: "stop_requested_at"}


class Lifecycle(RuleBasedStateMachine):
    new_database: NewDatabase

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        clock = functools.partial(next, count(1_000_000_000, 0.001))
        self.database = without_fsync(open_database(type(self).new_database(Path(self.folder.name)), clock=clock))
        paths = dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations"), "x")
        self.do(lambda session: session.add(Dataset(id="ds_shapes", name="shapes", **paths)))
        self.model = Model()
        self.ids: list[str] = []
        self.leases: list[Lease] = []
        self.accepted: list[tuple[str, int]] = []

    def teardown(self) -> None:
        try:
            oracle.check(self.database, None, oracle.Expected(unfinished=self.ids, accepted=self.accepted))
        finally:
            self.database.engine.dispose()
            self.folder.cleanup()

    # what users do

    @rule(
        owner=st.sampled_from(["ann", "bob"]),
        key=st.sampled_from([None, "k1", "k2"]),
        digest=st.sampled_from("ab"),
        teacher=st.none() | ANY,
        urgent=st.booleans(),
    )
    def submit(self, owner: str, key: str | None, digest: str, teacher: int | None, urgent: bool) -> None:
        idempotency = lifecycle.Idempotency(key, digest) if key else None
        needed = self.some_job(teacher) if teacher is not None else None
        spec = ALONE.model_copy(update={"priority": int(urgent)})
        request = {"dataset_id": "ds_shapes", "owner": owner, "idempotency": idempotency}
        try:
            earlier = self.model.job_of_request(owner, key, digest)
        except ModelError as refusal:
            return self.refused(refusal, lifecycle.add, spec, **request)
        try:
            job_id = self.do(lifecycle.add, spec, teacher_job_id=needed, **request).id
        except AlreadySubmitted as repeated:
            assert earlier and repeated.job_id == earlier.id
        else:
            assert earlier is None
            self.added(ModelJob(job_id, owner=owner, teacher=needed, key=key, digest=digest, priority=int(urgent)))

    @rule()
    def submit_a_family(self) -> None:
        parent = self.do(lifecycle.add, FAMILY, dataset_id="ds_shapes").id
        self.added(ModelJob(parent))
        for spec in (baseline_of(FAMILY), comparison_of(FAMILY)):
            child = self.do(lifecycle.add, spec, dataset_id="ds_shapes", parent_id=parent).id
            self.added(ModelJob(child, kind=spec.kind, parent=parent))

    @precondition(lambda self: self.ids)
    @rule(which=ANY, action=st.sampled_from(Action))
    def act(self, which: int, action: Action) -> None:
        job_id = self.ids[-1 - which % len(self.ids)]
        function = actions.cancel_group if action is Action.CANCEL else getattr(actions, action)
        self.same(lambda: self.model.act(action, job_id), function, job_id)

    @precondition(lambda self: self.model.jobs)
    @rule(which=ANY, priority=st.integers(-1, 1))
    def change(self, which: int, priority: int) -> None:
        job_id = self.some_job(which)
        self.do(actions.change, job_id, priority=priority)
        self.model.jobs[job_id].priority = priority

    # what workers do

    @rule()
    def claim_the_next(self) -> None:
        self.claimed(self.do(lifecycle.claim, "worker", 1e9), self.model.next_job())

    @precondition(lambda self: self.model.jobs)
    @rule(which=ANY)
    def claim_that_one(self, which: int) -> None:
        wanted = self.model.jobs[self.some_job(which)]
        lease = self.do(lifecycle.claim, "worker", 1e9, wanted.id)
        self.claimed(lease, wanted if self.model.is_runnable(wanted) else None)

    @precondition(lambda self: self.leases)
    @rule(which=ANY)
    def renew(self, which: int) -> None:
        def kept(job: ModelJob) -> None:
            job.expired = False

        renewal = self.as_holder(which, kept, lifecycle.renew, 1e9)
        if renewal:
            requests = self.model.jobs[renewal.lease.job_id].requests
            assert renewal.requested_action == max(
                (RequestedAction[request.name] for request in requests), default=RequestedAction.NONE
            )

    @precondition(lambda self: self.leases)
    @rule(which=ANY)
    def begin(self, which: int) -> None:
        job = self.model.jobs.get(self.some_lease(which).job_id)
        to_step = job.committed_step if job else 0

        def voided(job: ModelJob) -> None:
            job.metrics = {step: value for step, value in job.metrics.items() if step <= to_step}

        self.as_holder(which, voided, recording.record, [events.Rewound(to_step=to_step)])

    @precondition(lambda self: self.leases)
    @rule(which=ANY, steps=st.integers(1, 3), again=st.booleans(), value=st.floats(-1e9, 1e9))
    def train(self, which: int, steps: int, again: bool, value: float) -> None:
        job = self.model.jobs.get(self.some_lease(which).job_id)
        first = (job.step if job else 0) + (not again)
        batch = [
            events.Metrics(step=step, epoch=0, values={"train/loss": value}) for step in range(first, first + steps)
        ]

        def learned(job: ModelJob) -> None:
            job.metrics |= {event.step: value for event in batch}

        self.as_holder(which, learned, recording.record, [events.Log(message="hello"), *batch])

    @precondition(lambda self: self.leases)
    @rule(which=ANY)
    def checkpoint(self, which: int) -> None:
        lease = self.some_lease(which)
        job = self.model.jobs.get(lease.job_id)
        file = events.Checkpoint(
            kind="training", path="a.pth", sha256="a" * 64, bytes=1, step=job.step if job else 0, epoch=0
        )

        def keep(session: Any, lease: Lease) -> None:
            recording.record_checkpoint(session, lease, file, recording.checkpoint_key(lease, file))
            checkpoints.prune_checkpoints(session, lease)

        self.as_holder(which, self.model.checkpoint, keep)

    @precondition(lambda self: self.leases)
    @rule(which=ANY, end=st.sampled_from(ENDS))
    def settle(self, which: int, end: tuple[JobStatus, EndReason]) -> None:
        self.as_holder(which, lambda job: self.model.finish(job, *end), lifecycle.finish, *end)

    @precondition(lambda self: self.leases)
    @rule(which=ANY, died=st.booleans(), delay=st.sampled_from([0.0, 1e9]))
    def give_back(self, which: int, died: bool, delay: float) -> None:
        how = AttemptEnd.CRASHED if died else AttemptEnd.RELEASED
        self.as_holder(
            which,
            lambda job: self.model.requeue(job, how, delayed=bool(delay)),
            functools.partial(lifecycle.requeue, attempt_counts=died, delay=delay),
        )

    # what time does

    @precondition(lambda self: self.leases)
    @rule(which=ANY)
    def a_lease_runs_out(self, which: int) -> None:
        lease = self.some_lease(which)
        if job := self.model.jobs.get(lease.job_id):
            past = update(Job).where(Job.id == job.id, Job.status == JobStatus.RUNNING).values(lease_expires_at=1.0)
            self.do(lambda session: session.execute(past))
            job.expired = True

    @rule()
    def delays_pass(self) -> None:
        past = update(Job).where(Job.not_before.is_not(None)).values(not_before=1.0)
        self.do(lambda session: session.execute(past))
        for job in self.model.jobs.values():
            job.delayed = False

    @rule()
    def reap(self) -> None:
        self.do(lifecycle.requeue_expired)
        self.model.reap()

    @rule()
    def look_for_orphans(self) -> None:
        self.do(lifecycle.fail_dependents)
        self.model.fail_dependents()

    # what must be the same

    @invariant()
    def jobs_are_as_the_model_says(self) -> None:
        with self.database.read() as session:
            rows = session.scalars(select(Job)).all()
        assert {job.id: _stored_state(job) for job in rows} == {
            job.id: _expected_state(job) for job in self.model.jobs.values()
        }

    @invariant()
    def what_attempts_left_is_as_the_model_says(self) -> None:
        every = self.model.jobs.values()
        ends = {(job.id, number, end) for job in every for number, end in job.ends.items()}
        checkpoints = {(job.id, *checkpoint) for job in every for checkpoint in job.checkpoints}
        metrics = {(job.id, step, value) for job in every for step, value in job.metrics.items()}
        with self.database.read() as session:
            assert set(session.execute(select(Attempt.job_id, Attempt.number, Attempt.end)).tuples()) == ends
            kept = select(Checkpoint.job_id, Checkpoint.attempt, Checkpoint.step)
            assert set(session.execute(kept).tuples()) == checkpoints
            assert set(session.execute(select(Metric.job_id, Metric.step, Metric.value)).tuples()) == metrics

    def do(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with self.database.write() as session:
            result = function(session, *arguments, **named)
            session.commit()
        return result

    def same(self, expected: Callable[[], None], function: Callable[..., Any], *arguments: Any) -> Any:
        """The store does it where the model does, and refuses it where the model does."""
        try:
            expected()
        except ModelError as refusal:
            return self.refused(refusal, function, *arguments)
        return self.do(function, *arguments)

    def refused(self, refusal: ModelError, function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        with pytest.raises(FrsError) as said:
            self.do(function, *arguments, **named)
        assert type(said.value).__name__ == str(refusal)

    def as_holder(
        self, which: int, change: Callable[[ModelJob], None], function: Callable[..., Any], *arguments: Any
    ) -> Any:
        lease = self.some_lease(which)
        result = self.same(
            lambda: change(self.model.leased_job(lease.job_id, lease.attempt)),
            lambda session: function(session, lease, *arguments) or True,
        )
        if result:
            self.accepted.append((lease.job_id, lease.attempt))
        return result

    def claimed(self, lease: Lease | None, expected: ModelJob | None) -> None:
        assert (lease and lease.job_id) == (expected and expected.id)
        if lease and expected:
            self.model.claim(expected)
            assert lease.attempt == expected.attempt
            self.leases.append(lease)

    def added(self, job: ModelJob) -> None:
        self.model.jobs[job.id] = job
        self.ids.append(job.id)

    def some_job(self, which: int) -> str | None:
        job_ids = list(self.model.jobs)
        return job_ids[-1 - which % len(job_ids)] if job_ids else None

    def some_lease(self, which: int) -> Lease:
        return self.leases[-1 - which % len(self.leases)]


def _stored_state(job: Job) -> tuple[Any, ...]:
    requests = {request for request, column in REQUESTS.items() if getattr(job, column) is not None}
    return (
        job.status,
        job.end_reason,
        job.attempt,
        job.failures_reset_at_attempt,
        job.priority,
        job.teacher_job_id,
        requests,
    )


def _expected_state(job: ModelJob) -> tuple[Any, ...]:
    return (
        job.status,
        job.end_reason,
        job.attempt,
        job.failures_reset_at_attempt,
        job.priority,
        job.teacher,
        job.requests,
    )


def _run(new_database: NewDatabase, examples: int, steps: int) -> None:
    machine = type("Life", (Lifecycle,), {"new_database": staticmethod(new_database)})
    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        print_blob=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=how)


def test_the_store_agrees_with_the_model_on_sqlite(sqlite: NewDatabase) -> None:
    _run(sqlite, examples=20, steps=40)


def test_the_store_agrees_with_the_model_on_postgresql(postgresql: NewDatabase) -> None:
    _run(postgresql, examples=3, steps=40)


@pytest.mark.slow
def test_the_store_agrees_with_the_model_for_long_on_postgresql(postgresql: NewDatabase) -> None:
    _run(postgresql, examples=30, steps=40)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_store_agrees_with_the_model_for_long(sqlite: NewDatabase) -> None:
    _run(sqlite, examples=1000, steps=60)
