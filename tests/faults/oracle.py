"""Test oracle: the invariants of docs/reliability.md, which hold in the database and the artifacts after any fault.

`check` compares the database and the artifacts with the responses that callers received.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.artifacts.folder import ArtifactFolder
from store.artifacts.storage import Artifacts
from store.db.database import Database
from store.db.tables import Artifact, Attempt, Checkpoint, Event, Job, Metric
from store.errors import ArtifactNotFound
from store.states import ALLOWED, Action, EndReason, JobStatus

START = None
"""Status before the first event."""
STORE_TRANSITIONS = {
    (START, JobStatus.QUEUED),
    (JobStatus.QUEUED, JobStatus.RUNNING),  # claimed
    (JobStatus.QUEUED, JobStatus.FAILED),  # a dependency failed
    (JobStatus.RUNNING, JobStatus.QUEUED),  # requeued by its worker or by the reaper
    (JobStatus.RUNNING, JobStatus.SUCCEEDED),
    (JobStatus.RUNNING, JobStatus.FAILED),
}
ACTION_TARGETS = {
    Action.CANCEL: JobStatus.CANCELLED,
    Action.PAUSE: JobStatus.PAUSED,
    Action.RESUME: JobStatus.QUEUED,
    Action.RETRY: JobStatus.QUEUED,
}
TRANSITIONS = STORE_TRANSITIONS | {
    (status, target) for action, target in ACTION_TARGETS.items() for status in ALLOWED[action]
}
SUCCESSFUL_END_REASONS = {
    EndReason.COMPLETED,
    EndReason.STOPPED_EARLY,
    EndReason.TIME_LIMIT,
    EndReason.NO_IMPROVEMENT,
}
OWNER_EVENTS = {"changed"}
"""Events that need no running attempt."""


@dataclass(frozen=True)
class Expected:
    """The responses that callers received, and the damage that the test did."""

    acknowledged: Collection[str] = ()
    """Jobs whose creation was acknowledged."""
    deleted: Collection[str] = ()
    """Jobs whose deletion was requested."""
    unfinished: Collection[str] = ()
    """Jobs that need not have ended."""
    accepted: Sequence[tuple[str, int]] = ()
    """Job and attempt of every successful write, in the order of the responses."""
    rewound_further: Collection[str] = ()
    """Jobs whose newest checkpoint file the test destroyed."""


@dataclass
class History:
    """All rows of one job."""

    job: Job
    attempts: list[Attempt] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{event.seq} {event.type} of {event.attempt}: {event.data}" for event in self.events]
        return "\n  ".join([f"{self.job.id} is {self.job.status}, attempt {self.job.attempt}", *lines])


def check(database: Database, artifacts: Artifacts | None = None, expected: Expected = Expected()) -> None:  # noqa: B008
    """Check every invariant. Raises AssertionError, which names the invariant and the job, if one is broken."""
    with database.read() as session:
        histories = _histories(session)
    _check_acknowledged_jobs_end(histories, expected)
    _check_order_of_accepted_writes(expected.accepted)
    _check_idempotency_keys(histories)
    for history in histories.values():
        _check_transitions(history)
        _check_job_row(history)
        _check_attempt_numbers(history)
        _check_attempts_of_writes(history)
        _check_status_at_writes(history)
        _check_event_numbers(history)
        _check_rewound_metrics(history)
        if history.job.id not in expected.rewound_further:
            _check_start_steps(history)
        if artifacts:
            _check_files(history, artifacts)
    if isinstance(artifacts, ArtifactFolder):
        temporary = [path for path in artifacts.root.rglob(".*") if path.is_file()]
        _require(not temporary, "I10", f"temporary files are left: {temporary}")


def _histories(session: Session) -> dict[str, History]:
    histories = {job.id: History(job) for job in session.scalars(select(Job))}
    queries = {
        "attempts": select(Attempt).order_by(Attempt.number),
        "events": select(Event).order_by(Event.seq),
        "metrics": select(Metric).order_by(Metric.seq),
        "checkpoints": select(Checkpoint),
        "artifacts": select(Artifact),
    }
    for name, query in queries.items():
        for row in session.scalars(query):
            getattr(histories[row.job_id], name).append(row)
    return histories


def _check_acknowledged_jobs_end(histories: dict[str, History], expected: Expected) -> None:
    missing = set(expected.acknowledged) - set(histories) - set(expected.deleted)
    _require(not missing, "I1", f"acknowledged jobs do not exist: {missing}")
    for job_id in set(expected.acknowledged) & set(histories) - set(expected.unfinished):
        _require(
            histories[job_id].job.status.is_terminal, "I1", f"an acknowledged job has not ended: {histories[job_id]}"
        )


def _check_order_of_accepted_writes(accepted: Sequence[tuple[str, int]]) -> None:
    newest: dict[str, int] = defaultdict(int)
    for job_id, attempt in accepted:
        _require(
            attempt >= newest[job_id], "I2", f"{job_id}: a write of attempt {attempt} after one of {newest[job_id]}"
        )
        newest[job_id] = attempt


def _check_idempotency_keys(histories: dict[str, History]) -> None:
    keys = [
        (history.job.owner, history.job.idempotency_key)
        for history in histories.values()
        if history.job.idempotency_key
    ]
    duplicates = [key for key, count in Counter(keys).items() if count > 1]
    _require(not duplicates, "I8", f"more than one job of owner and key: {duplicates}")


def _check_transitions(history: History) -> None:
    path = [START, *(status for _, status in _statuses(history))]
    invalid = [transition for transition in pairwise(path) if transition not in TRANSITIONS]
    _require(not invalid, "I3", f"invalid transitions {invalid} in {history}")
    _require(path[-1] == history.job.status, "I3", f"the job's status is not that of its last event: {history}")


def _check_job_row(history: History) -> None:
    job = history.job
    lease = (job.lease_owner is not None, job.lease_expires_at is not None)
    _require(lease == ((job.status == JobStatus.RUNNING),) * 2, "I10", f"lease {lease} in {history}")
    ended = (job.end_reason is not None, job.finished_at is not None)
    _require(ended == (job.status.is_terminal,) * 2, "I3", f"end reason and time {ended} in {history}")
    succeeded = job.end_reason in SUCCESSFUL_END_REASONS
    _require((job.status == JobStatus.SUCCEEDED) == succeeded, "I3", f"end reason {job.end_reason}: {history}")
    cancelled = job.end_reason == EndReason.CANCELLED_BY_USER
    _require((job.status == JobStatus.CANCELLED) == cancelled, "I3", f"end reason {job.end_reason}: {history}")
    if job.status in (JobStatus.QUEUED, JobStatus.PAUSED):
        requested_at = job.cancel_requested_at or job.pause_requested_at
        _require(requested_at is None, "I3", f"a request is pending without an attempt: {history}")


def _check_attempt_numbers(history: History) -> None:
    job, numbers = history.job, [attempt.number for attempt in history.attempts]
    _require(numbers == list(range(1, job.attempt + 1)), "I2", f"attempts {numbers} of {history}")
    started = [event.attempt for event, status in _statuses(history) if status == JobStatus.RUNNING]
    _require(started == numbers, "I2", f"attempts {numbers}, started {started} in {history}")
    running = [attempt.number for attempt in history.attempts if attempt.end is None]
    _require(running == [job.attempt] * (job.status == JobStatus.RUNNING), "I2", f"running: {running} in {history}")


def _check_attempts_of_writes(history: History) -> None:
    writes = sorted((row.seq, row.attempt) for row in [*history.events, *history.metrics])
    late = [later for earlier, later in pairwise(writes) if later[1] < earlier[1]]
    _require(not late, "I2", f"writes of an older attempt (number, attempt): {late} in {history}")


def _check_status_at_writes(history: History) -> None:
    statuses = _statuses(history)
    writes = [(event.seq, event.type) for event in history.events if event.type not in {"status", *OWNER_EVENTS}]
    for seq, type in [*writes, *((metric.seq, "metrics") for metric in history.metrics)]:
        status = max((event.seq, status) for event, status in statuses if event.seq < seq)[1]
        _require(status == JobStatus.RUNNING, "I9", f"{seq} ({type}) was written to a job that was {status}: {history}")


def _check_event_numbers(history: History) -> None:
    """Check for gaps; a number may lack a row if it was a batch of metrics that a later write voided or replaced."""
    numbers = [event.seq for event in history.events]
    batches = {metric.seq for metric in history.metrics}
    _require(
        not batches & set(numbers), "I7", f"numbers of both events and metrics: {batches & set(numbers)} in {history}"
    )
    last_voiding = max([0, *batches, *(seq for seq in _voiding_events(history))])
    missing = set(range(1, history.job.last_event + 1)) - batches - set(numbers)
    _require(max(missing, default=0) <= last_voiding, "I7", f"numbers without a row: {missing} in {history}")
    _require(
        max([0, *batches, *numbers]) <= history.job.last_event,
        "I7",
        f"numbers above the job's last number in {history}",
    )


def _voiding_events(history: History) -> Iterator[int]:
    """Yield the numbers of the events that void metrics."""
    yield from (event.seq for event in history.events if event.type == "rewound")
    yield from (event.seq for event, status in _statuses(history) if status == JobStatus.QUEUED)


def _check_rewound_metrics(history: History) -> None:
    for event in history.events:
        if event.type == "rewound":
            steps = [row.step for row in history.metrics if row.seq < event.seq and row.step > event.data["to_step"]]
            _require(not steps, "I4", f"metrics of steps {steps} outlived event {event.seq} of {history}")


def _check_start_steps(history: History) -> None:
    """Check that each attempt resumes from the newest checkpoint, or, after a possible retry, from step 0."""
    committed, retried, status = 0, False, START
    for event in history.events:
        if event.type == "status":
            before, status = status, JobStatus(event.data["status"])
            retried = retried or (before in ALLOWED[Action.RETRY] and status == JobStatus.QUEUED)
        elif event.type == "checkpoint" and event.data["kind"] == "training":
            committed, retried = event.data["step"], False
        elif event.type == "rewound":
            step = event.data["to_step"]
            _require(
                step >= committed or (retried and step == 0),
                "I6",
                f"resumed from {step} instead of {committed}: {history}",
            )
            committed = step if retried else committed
    for attempt in history.attempts:
        rewound_to = [
            event.data["to_step"]
            for event in history.events
            if event.type == "rewound" and event.attempt == attempt.number
        ]
        _require(
            attempt.start_step == (rewound_to[-1] if rewound_to else None),
            "I6",
            f"start step of attempt {attempt.number}: {history}",
        )


def _check_files(history: History, artifacts: Artifacts) -> None:
    for row in [*history.checkpoints, *history.artifacts]:
        try:
            with artifacts.open(row.key) as file:
                content = file.read()
        except ArtifactNotFound:
            raise AssertionError(f"I5: {row.key} has a row but no file: {history}") from None
        matches = (hashlib.sha256(content).hexdigest(), len(content)) == (row.sha256, row.bytes)
        _require(matches, "I5", f"{row.key} does not match its row: {history}")


def _statuses(history: History) -> list[tuple[Event, JobStatus]]:
    return [(event, JobStatus(event.data["status"])) for event in history.events if event.type == "status"]


def _require(condition: Any, invariant: str, message: str) -> None:
    if not condition:
        raise AssertionError(f"{invariant}: {message}")
