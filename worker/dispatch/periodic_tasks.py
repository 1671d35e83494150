"""Maintenance that a worker repeats beside its jobs, such as the removal of unused files."""

import threading
import time
from collections.abc import Callable

import structlog

_log = structlog.get_logger()


class PeriodicTask:
    """A function that runs every `every` seconds in its own thread, because a disk may be slow; never twice at once.

    Only the dispatcher's thread calls it. An error of the function is logged; the next run is the retry.
    """

    def __init__(self, name: str, work: Callable[[], None], every: float) -> None:
        """`every` is the time from one start to the next, in seconds."""
        self._name, self._work, self._every = name, work, every
        self._due_at = 0.0
        self._thread: threading.Thread | None = None

    def start_when_due(self) -> None:
        """Start the function if it is due and its last run has ended. Return at once."""
        if time.monotonic() < self._due_at or (self._thread is not None and self._thread.is_alive()):
            return
        self._due_at = time.monotonic() + self._every
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            _log.warning("A periodic task failed.", task=self._name, error=f"{type(error).__name__}: {error}"[:500])
