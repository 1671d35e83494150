"""What must hold in the database and the artifacts after any fault: the invariants of the reliability document.

`check` looks at what is left, with what callers were told; AssertionError names the invariant and the job.
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

BEGINNING = None
BY_THE_STORE = {
    (BEGINNING, JobStatus.QUEUED),
    (JobStatus.QUEUED, JobStatus.RUNNING),  # claimed
    (JobStatus.QUEUED, JobStatus.FAILED),  # what it depends on has failed
    (JobStatus.RUNNING, JobStatus.QUEUED),  # given back, or taken back
    (JobStatus.RUNNING, JobStatus.SUCCEEDED),
    (JobStatus.RUNNING, JobStatus.FAILED),
}
BY_ACTION = {
    Action.CANCEL: JobStatus.CANCELLED,
    Action.PAUSE: JobStatus.PAUSED,
    Action.RESUME: JobStatus.QUEUED,
    Action.RETRY: JobStatus.QUEUED,
}
EDGES = BY_THE_STORE | {(status, end) for action, end in BY_ACTION.items() for status in ALLOWED[action]}
GOOD_ENDS = {EndReason.COMPLETED, EndReason.STOPPED_EARLY, EndReason.TIME_LIMIT}
BY_OWNERS = {"changed"}
"""Events that need no running attempt."""


@dataclass(frozen=True)
class Expected:
    """What callers were told, and what a test itself has broken."""

    acknowledged: Collection[str] = ()
    deleted: Collection[str] = ()
    """Jobs somebody asked to delete."""
    unfinished: Collection[str] = ()
    """Jobs that need not have ended."""
    accepted: Sequence[tuple[str, int]] = ()
    """Job and attempt of every write that was answered with success, in the order of the answers."""
    rewound_further: Collection[str] = ()
    """Jobs whose newest checkpoint file was destroyed."""


@dataclass
class History:
    """All of one job."""

    job: Job
    attempts: list[Attempt] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)

    def __str__(self) -> str:
        said = [f"{event.seq} {event.type} of {event.attempt}: {event.data}" for event in self.events]
        return "\n  ".join([f"{self.job.id} is {self.job.status}, attempt {self.job.attempt}", *said])


def check(database: Database, artifacts: Artifacts | None = None, expected: Expected = Expected()) -> None:  # noqa: B008
    with database.read() as session:
        found = _histories(session)
    _acknowledged_jobs_have_ended(found, expected)
    _accepted_writes_are_in_order(expected.accepted)
    _one_job_per_idempotency_key(found)
    for history in found.values():
        _statuses_are_a_path(history)
        _the_row_agrees_with_its_state(history)
        _attempts_are_numbered(history)
        _nothing_of_an_older_attempt(history)
        _only_running_attempts_write(history)
        _numbers_have_no_gap(history)
        _going_back_voids_what_came_later(history)
        if history.job.id not in expected.rewound_further:
            _attempts_go_on_from_what_was_committed(history)
        if artifacts:
            _files_are_there(history, artifacts)
    if isinstance(artifacts, ArtifactFolder):
        stray = [path for path in artifacts.root.rglob(".*") if path.is_file()]
        _require(not stray, "I10", f"temporary files are left: {stray}")


def _histories(session: Session) -> dict[str, History]:
    found = {job.id: History(job) for job in session.scalars(select(Job))}
    ordered = {
        "attempts": select(Attempt).order_by(Attempt.number),
        "events": select(Event).order_by(Event.seq),
        "metrics": select(Metric).order_by(Metric.seq),
        "checkpoints": select(Checkpoint),
        "artifacts": select(Artifact),
    }
    for name, query in ordered.items():
        for row in session.scalars(query):
            getattr(found[row.job_id], name).append(row)
    return found


def _acknowledged_jobs_have_ended(found: dict[str, History], expected: Expected) -> None:
    missing = set(expected.acknowledged) - set(found) - set(expected.deleted)
    _require(not missing, "I1", f"acknowledged, and not there: {missing}")
    for job_id in set(expected.acknowledged) & set(found) - set(expected.unfinished):
        _require(found[job_id].job.status.is_terminal, "I1", f"has not ended: {found[job_id]}")


def _accepted_writes_are_in_order(accepted: Sequence[tuple[str, int]]) -> None:
    newest: dict[str, int] = defaultdict(int)
    for job_id, attempt in accepted:
        _require(
            attempt >= newest[job_id], "I2", f"{job_id}: a write of attempt {attempt} after one of {newest[job_id]}"
        )
        newest[job_id] = attempt


def _one_job_per_idempotency_key(found: dict[str, History]) -> None:
    keys = [
        (history.job.owner, history.job.idempotency_key) for history in found.values() if history.job.idempotency_key
    ]
    twice = [key for key, count in Counter(keys).items() if count > 1]
    _require(not twice, "I8", f"more than one job of {twice}")


def _statuses_are_a_path(history: History) -> None:
    path = [BEGINNING, *(status for _, status in _statuses(history))]
    wrong = [edge for edge in pairwise(path) if edge not in EDGES]
    _require(not wrong, "I3", f"no such transitions: {wrong} in {history}")
    _require(path[-1] == history.job.status, "I3", f"the row says otherwise than the last event: {history}")


def _the_row_agrees_with_its_state(history: History) -> None:
    job = history.job
    held = (job.lease_owner is not None, job.lease_expires_at is not None)
    _require(held == ((job.status == JobStatus.RUNNING),) * 2, "I10", f"lease {held} in {history}")
    ended = (job.end_reason is not None, job.finished_at is not None)
    _require(ended == (job.status.is_terminal,) * 2, "I3", f"end reason and time {ended} in {history}")
    _require((job.status == JobStatus.SUCCEEDED) == (job.end_reason in GOOD_ENDS), "I3", f"{job.end_reason}: {history}")
    cancelled = job.end_reason == EndReason.CANCELLED_BY_USER
    _require((job.status == JobStatus.CANCELLED) == cancelled, "I3", f"{job.end_reason}: {history}")
    if job.status in (JobStatus.QUEUED, JobStatus.PAUSED):
        asked = job.cancel_requested_at or job.pause_requested_at
        _require(asked is None, "I3", f"a request is pending that nobody will see: {history}")


def _attempts_are_numbered(history: History) -> None:
    job, numbers = history.job, [attempt.number for attempt in history.attempts]
    _require(numbers == list(range(1, job.attempt + 1)), "I2", f"attempts {numbers} of {history}")
    begun = [event.attempt for event, status in _statuses(history) if status == JobStatus.RUNNING]
    _require(begun == numbers, "I2", f"attempts {numbers}, begun {begun} in {history}")
    open_ones = [attempt.number for attempt in history.attempts if attempt.end is None]
    _require(open_ones == [job.attempt] * (job.status == JobStatus.RUNNING), "I2", f"open: {open_ones} in {history}")


def _nothing_of_an_older_attempt(history: History) -> None:
    written = sorted((row.seq, row.attempt) for row in [*history.events, *history.metrics])
    late = [later for earlier, later in pairwise(written) if later[1] < earlier[1]]
    _require(not late, "I2", f"written by an older attempt (number, attempt): {late} in {history}")


def _only_running_attempts_write(history: History) -> None:
    statuses = _statuses(history)
    written = [(event.seq, event.type) for event in history.events if event.type not in {"status", *BY_OWNERS}]
    for seq, type in [*written, *((metric.seq, "metrics") for metric in history.metrics)]:
        status = max((event.seq, status) for event, status in statuses if event.seq < seq)[1]
        _require(status == JobStatus.RUNNING, "I9", f"{seq} ({type}) was written to a job that was {status}: {history}")


def _numbers_have_no_gap(history: History) -> None:
    """A number without a row is a batch of metrics that something later voided or replaced."""
    numbers = [event.seq for event in history.events]
    batches = {metric.seq for metric in history.metrics}
    _require(not batches & set(numbers), "I7", f"both event and metrics: {batches & set(numbers)} in {history}")
    voiding = max([0, *batches, *(seq for seq in _voiding(history))])
    missing = set(range(1, history.job.last_event + 1)) - batches - set(numbers)
    _require(max(missing, default=0) <= voiding, "I7", f"numbers without a row: {missing} in {history}")
    _require(max([0, *batches, *numbers]) <= history.job.last_event, "I7", f"numbers nobody gave in {history}")


def _voiding(history: History) -> Iterator[int]:
    yield from (event.seq for event in history.events if event.type == "rewound")
    yield from (event.seq for event, status in _statuses(history) if status == JobStatus.QUEUED)


def _going_back_voids_what_came_later(history: History) -> None:
    for event in history.events:
        if event.type == "rewound":
            kept = [row.step for row in history.metrics if row.seq < event.seq and row.step > event.data["to_step"]]
            _require(not kept, "I4", f"metrics of steps {kept} outlived {event.seq} of {history}")


def _attempts_go_on_from_what_was_committed(history: History) -> None:
    """From scratch only where it had ended before, for then it may have been retried."""
    committed, anew, status = 0, False, BEGINNING
    for event in history.events:
        if event.type == "status":
            before, status = status, JobStatus(event.data["status"])
            anew = anew or (before in ALLOWED[Action.RETRY] and status == JobStatus.QUEUED)
        elif event.type == "checkpoint" and event.data["kind"] == "training":
            committed, anew = event.data["step"], False
        elif event.type == "rewound":
            step = event.data["to_step"]
            _require(
                step >= committed or (anew and step == 0), "I6", f"went on from {step}, not {committed}: {history}"
            )
            committed = step if anew else committed
    for attempt in history.attempts:
        said = [
            event.data["to_step"]
            for event in history.events
            if event.type == "rewound" and event.attempt == attempt.number
        ]
        _require(
            attempt.start_step == (said[-1] if said else None), "I6", f"start of attempt {attempt.number}: {history}"
        )


def _files_are_there(history: History, artifacts: Artifacts) -> None:
    for row in [*history.checkpoints, *history.artifacts]:
        try:
            with artifacts.open(row.key) as file:
                content = file.read()
        except ArtifactNotFound:
            raise AssertionError(f"I5: {row.key} has a row and no file: {history}") from None
        same = (hashlib.sha256(content).hexdigest(), len(content)) == (row.sha256, row.bytes)
        _require(same, "I5", f"{row.key} is not what its row says: {history}")


def _statuses(history: History) -> list[tuple[Event, JobStatus]]:
    return [(event, JobStatus(event.data["status"])) for event in history.events if event.type == "status"]


def _require(true: Any, invariant: str, otherwise: str) -> None:
    if not true:
        raise AssertionError(f"{invariant}: {otherwise}")
