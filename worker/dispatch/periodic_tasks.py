"""What a worker does every so often beside its jobs, such as tidying up."""

import threading
import time
from collections.abc import Callable

import structlog

_log = structlog.get_logger()


class PeriodicTask:
    """Done in a thread of its own, for a disk may take its time, and never twice at once."""

    def __init__(self, name: str, work: Callable[[], None], every: float) -> None:
        """`every`: seconds, from one begin to the next."""
        self._name, self._work, self._every = name, work, every
        self._due_at = 0.0
        self._thread: threading.Thread | None = None

    def begin_when_due(self) -> None:
        if time.monotonic() < self._due_at or (self._thread is not None and self._thread.is_alive()):
            return
        self._due_at = time.monotonic() + self._every
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # next time
            _log.warning(f"{self._name} failed", error=f"{type(error).__name__}: {error}"[:500])
