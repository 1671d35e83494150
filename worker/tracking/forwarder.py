"""Forwards one run to one tracker, in a thread of its own, so that no tracker can block, slow or fail a job."""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import structlog

from frs.errors import FrsError
from worker.tracking.tracker import Point, RunEnd, TrackedRun, Tracker, TrackerRefused, TrackerUnavailable

MAX_QUEUED = 10_000
"""Steps and files that wait for a tracker; when there are more, the oldest are dropped."""
MAX_BATCH = 200
"""Steps that are forwarded in one call."""
LAST_SECONDS = 20.0
"""Time in which a tracker has to take the rest of a run; none for a tracker that has failed for as long already."""
END_SECONDS = 5.0
"""Time in which a tracker has to take the end of a run."""
_log = structlog.get_logger()


@dataclass(frozen=True)
class ResultFile:
    """A result file of a job, in the artifacts."""

    name: str
    size: int
    open: Callable[[], BinaryIO]
    """Raises FrsError if the file was replaced meanwhile."""


Item = Point | ResultFile | RunEnd


class Forwarder:
    """A bounded queue, and the daemon thread that forwards it. The methods may be called from any thread.

    Calls that fail are repeated with backoff until `close`. Nothing is raised. The worker's log has every loss.
    """

    def __init__(self, tracker: Tracker, run: TrackedRun, backoff: Callable[[], Iterator[float]] | None = None) -> None:
        self._tracker, self._backoff = tracker, backoff or _backoff
        self._queue: deque[Item] = deque()
        self._is_busy = True
        self._is_closed = threading.Event()
        self._changed = threading.Condition()
        """Guards the queue and `_is_busy`."""
        self._failing_since: float | None = None
        self._last_failure = ""
        self._warning: str | None = None
        self._has_warned = False
        self._log = _log.bind(tracker=tracker.name, job_id=run.job_id, attempt=run.attempt)
        self._thread = threading.Thread(target=self._forward, args=[run], name=f"tracker {tracker.name}", daemon=True)
        self._thread.start()

    def add(self, item: Item) -> None:
        """Queue the item and return at once. Without effect once the forwarder is closed or the run was refused."""
        with self._changed:
            if self._is_closed.is_set():
                return
            is_full = len(self._queue) >= MAX_QUEUED
            if is_full:
                self._queue.popleft()
            self._queue.append(item)
            self._changed.notify_all()
        if is_full:
            self._warn(f"takes values more slowly than the job sends them: more than {MAX_QUEUED} wait")

    def wait(self, seconds: float) -> bool:
        """Wait until the queue is forwarded; return False if it is not after `seconds`.

        A tracker that has failed already for as long is not waited for.
        """
        started = time.monotonic()
        with self._changed:
            while self._queue or self._is_busy:
                until = (self._failing_since or started) + seconds
                if self._is_closed.is_set() or not self._changed.wait(max(0.0, until - time.monotonic())):
                    break
            return not (self._queue or self._is_busy)

    def take_warnings(self) -> list[str]:
        """Return the new messages for the job's log: the first loss, once."""
        warning, self._warning = self._warning, None
        return [warning] if warning else []

    def warn_of_rest(self) -> None:
        """Warn of what was not forwarded in time."""
        self._warn(f"has not taken {len(self._queue) or 'some'} of the job's last values and files in time")

    def close(self) -> None:
        """Drop what waits and end the thread. Does not wait for a call that hangs."""
        with self._changed:
            self._is_closed.set()
            self._queue.clear()
            self._changed.notify_all()
        try:
            self._tracker.close()
        except Exception as error:
            self._log.warning("A tracker could not be closed.", error=type(error).__name__)

    def _forward(self, run: TrackedRun) -> None:
        if self._deliver(partial(self._tracker.start, run)):
            while items := self._take():
                self._deliver(partial(self._send, items))
        self.close()
        with self._changed:
            self._is_busy = False
            self._changed.notify_all()

    def _take(self) -> list[Item]:
        """Return the next item, with the steps that follow it if it is one; empty once the forwarder is closed."""
        with self._changed:
            self._is_busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._queue or self._is_closed.is_set())
            self._is_busy = not self._is_closed.is_set()
            items = [self._queue.popleft()] if self._is_busy else []
            while items and self._queue and len(items) < MAX_BATCH and _are_points(items[-1], self._queue[0]):
                items.append(self._queue.popleft())
            return items

    def _send(self, items: list[Item]) -> None:
        match items[0]:
            case ResultFile() as file:
                self._send_file(file)
            case RunEnd() as end:
                self._tracker.end(end)
            case _:
                self._tracker.add_points([item for item in items if isinstance(item, Point)])

    def _send_file(self, file: ResultFile) -> None:
        try:
            content = file.open()
        except FrsError:
            return
        with content:
            self._tracker.add_file(file.name, content, file.size)

    def _deliver(self, call: Callable[[], None]) -> bool:
        """Return whether the call succeeded; repeat it until it does, is refused, or the forwarder is closed."""
        for delay in self._backoff():
            if self._is_closed.is_set():
                return False
            try:
                call()
            except TrackerRefused as error:
                self._warn(f"refused values of the job: {error}")
                return False
            except Exception as error:  # a tracker may answer anything
                self._fail(error)
                self._is_closed.wait(delay)
            else:
                self._failing_since = None
                return True
        return False

    def _fail(self, error: Exception) -> None:
        if self._is_closed.is_set():
            return
        with self._changed:  # wakes `wait`, which may give up now
            self._failing_since = self._failing_since or time.monotonic()
            self._changed.notify_all()
        self._last_failure = str(error) if isinstance(error, TrackerUnavailable) else type(error).__name__
        self._log.warning("A tracker does not answer; the call is repeated.", reason=self._last_failure)

    def _warn(self, reason: str) -> None:
        failure = f" ({self._last_failure})" if self._failing_since else ""
        message = f"{self._tracker.name} {reason}{failure}. The job is not affected. {self._tracker.hint}"
        self._log.warning("A tracker lacks values.", reason=message)
        if not self._has_warned:
            self._has_warned, self._warning = True, message


def _are_points(*items: Item) -> bool:
    return all(isinstance(item, Point) for item in items)


def _backoff() -> Iterator[float]:
    """Yield delays in seconds that double from 0.5 to 60, each multiplied by a random factor from 0.5 to 1."""
    delay = 0.5
    while True:
        yield delay * random.uniform(0.5, 1)
        delay = min(2 * delay, 60.0)
