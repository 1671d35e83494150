"""The heartbeat of an attempt: a thread that renews its lease."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

from store.errors import LeaseLost
from store.settings import Settings
from worker.attempt.database_retry import TRANSIENT_ERRORS

POLL_SECONDS = 1.0
"""Interval of the queries for a requested action."""


class Heartbeat:
    """Calls `renew` every `heartbeat_seconds`, and otherwise `poll` every second.

    A context manager that owns the thread `heartbeat`, because renewals must not wait for a large checkpoint. When the
    lease is lost, the thread calls `on_lost` and ends. It raises nothing: transient errors are logged.
    """

    def __init__(
        self,
        settings: Settings,
        renew: Callable[[], None],
        poll: Callable[[], None],
        on_lost: Callable[[], None],
        log_fields: dict[str, str | int],
    ) -> None:
        self._settings, self._renew, self._poll, self._on_lost = settings, renew, poll, on_lost
        self._log = structlog.get_logger().bind(**log_fields)
        self._renew_at = time.monotonic() + settings.heartbeat_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(min(POLL_SECONDS, self._settings.heartbeat_seconds)):
            try:
                self._beat()
            except LeaseLost:
                self._on_lost()
                return
            except TRANSIENT_ERRORS as error:
                self._log.warning("The lease could not be renewed.", error=type(error).__name__)
            except Exception:
                self._log.exception("The lease could not be renewed.")

    def _beat(self) -> None:
        started = time.monotonic()
        if started >= self._renew_at:
            self._renew()
            self._renew_at = started + self._settings.heartbeat_seconds
        else:
            self._poll()
