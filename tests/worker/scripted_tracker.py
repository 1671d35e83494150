"""A tracker that does as a test says."""

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from store.states import JobStatus
from worker.tracking.tracker import Point, RunEnd, TrackedRun, TrackerUnavailable

RUN = TrackedRun("job_1", "job_1", 1, "run", "train", "alice", "job_1", (), {})
END = RunEnd(JobStatus.SUCCEEDED, "completed")


class ScriptedTracker:
    """Records the calls; `fail` raises before a call is carried out."""

    name, hint = "Scripted", "See the script."

    def __init__(self, fail: Callable[[str, int], None] = lambda call, number: None) -> None:
        self.calls: list[Any] = []
        self.points: list[Point] = []
        self.closed = threading.Event()
        self.numbers = defaultdict[str, int](int)
        """Number of calls by kind, with those that fail."""
        self._fail = fail

    def start(self, run: TrackedRun) -> None:
        self._call("start", run.id)

    def add_points(self, points: list[Point]) -> None:
        self._call("points", *(point.step for point in points))
        self.points += points

    def add_file(self, name: str, content: Any, size: int) -> None:
        self._call("file", name, content.read())

    def end(self, end: RunEnd) -> None:
        self._call("end", end.status)

    def close(self) -> None:
        self.closed.set()

    @property
    def steps(self) -> list[int]:
        return [step for call, *arguments in self.calls if call == "points" for step in arguments]

    def _call(self, call: str, *arguments: Any) -> None:
        self.numbers[call] += 1
        self._fail(call, self.numbers[call])
        self.calls.append((call, *arguments))


def unavailable(*calls: str, times: int = 10**9) -> Callable[[str, int], None]:
    """Return a script in which the first `times` of each of these calls are not answered."""

    def fail(call: str, number: int) -> None:
        if call in calls and number <= times:
            raise TrackerUnavailable("ConnectError")

    return fail
