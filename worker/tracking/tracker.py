"""What every tracker implements, and what is forwarded to it."""

from dataclasses import dataclass
from typing import BinaryIO, Protocol

from store.states import JobStatus


class TrackerUnavailable(Exception):
    """The tracker does not answer, or not as expected. The call is repeated."""


class TrackerRefused(Exception):
    """The tracker refused the call for good. It is not repeated."""


@dataclass(frozen=True)
class TrackedRun:
    """A job as its run in a tracker."""

    id: str
    """Id of the job. After a retry from scratch, `JOB-ATTEMPT`, because a tracker keeps the values of the first try."""
    job_id: str
    attempt: int
    name: str
    """Name of the job, or its id."""
    kind: str
    owner: str
    group: str
    """Id of the first job of its run group."""
    tags: tuple[str, ...]
    parameters: dict[str, str]
    """Fields of the spec by path, such as `schedule.epochs`."""


@dataclass(frozen=True)
class Point:
    """The values of one step, by metric key."""

    step: int
    at: float
    """Seconds since 1970, by the worker's clock."""
    values: dict[str, float]


@dataclass(frozen=True)
class RunEnd:
    """How an attempt left its job. A status that is not terminal: a later attempt continues the run."""

    status: JobStatus
    reason: str | None


class Tracker(Protocol):
    """A run in a tracker.

    One thread calls the methods, except `close`. Each may block and raises TrackerUnavailable or TrackerRefused. After
    TrackerUnavailable the same call is repeated, also if the tracker has carried it out.
    """

    name: str
    """Name in messages."""
    hint: str
    """Next step if the tracker does not answer or refuses."""

    def start(self, run: TrackedRun) -> None:
        """Create the run, or continue it if an earlier attempt has created it."""

    def add_points(self, points: list[Point]) -> None:
        """Add the values. Steps that an earlier attempt has added are left out."""

    def add_file(self, name: str, content: BinaryIO, size: int) -> None:
        """Add a result file of `size` bytes, or replace the one of this name."""

    def end(self, end: RunEnd) -> None:
        """Set the status of the run; return when everything is transferred."""

    def close(self) -> None:
        """Release connections and processes and make a blocked call fail. Idempotent; from any thread."""
