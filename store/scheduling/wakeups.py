"""Wakeups: Celery messages that say "look at this job now". They may be lost or doubled; the database is the truth."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery

from store.settings import Settings

TRAIN = "train"
"""The only task; its one argument is a job id."""
QUEUE = "frs"
WAKEUP_EXPIRES_SECONDS = 300
"""A backlog of stale wakeups drains slowly, and whoever is idle looks in the database anyway."""
MAX_PENDING = 64
RETRY_DELAY_SECONDS = 0.05
"""Between two wakeups, so that under a flood of requests sending them takes no time from answering."""
_log = logging.getLogger(__name__)


def celery_app(settings: Settings) -> Celery:
    app = Celery("frs", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue=QUEUE,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        broker_connection_timeout=2,
        broker_connection_max_retries=None,  # a worker waits for its broker for ever
        broker_connection_retry_on_startup=True,
        broker_transport_options=_transport_options(settings),
    )
    return app


def broker_folders(settings: Settings) -> dict[str, Path]:
    """The folders of Celery's `filesystem://` transport by the names of its options."""
    messages = settings.broker_folder / "messages"
    return {
        "data_folder_in": messages,
        "data_folder_out": messages,
        "control_folder": settings.broker_folder / "control",
        "processed_folder": settings.broker_folder / "processed",
    }


class Wakeups:
    """A bounded queue and one thread that sends: `enqueue` returns at once, broker or no broker."""

    def __init__(self, send: Callable[[str], None], size: int = MAX_PENDING) -> None:
        self.dropped = 0
        """Wakeups there was no capacity for."""
        self._send = send
        self._waiting: queue.Queue[str | None] = queue.Queue(size)
        self._thread = threading.Thread(target=self._run, name="wakeups", daemon=True)
        self._thread.start()

    def enqueue(self, job_id: str) -> None:
        """Never blocks, never raises; a hint too many is dropped, for those before it wake as many workers."""
        try:
            self._waiting.put_nowait(job_id)
        except queue.Full:
            self.dropped += 1

    def close(self, timeout: float = 2.0) -> None:
        """Waits a little for what is still to be sent."""
        try:
            self._waiting.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _run(self) -> None:
        while (job_id := self._waiting.get()) is not None:
            try:
                self._send(job_id)
            except Exception as error:  # whatever the broker's client raises: a hint is not worth more
                _log.warning("hint not sent: %s", error, extra={"job_id": job_id})
            time.sleep(RETRY_DELAY_SECONDS)


def wakeup_sender(app: Celery) -> Callable[[str], None]:
    """Sends `train(job_id)`; raises within seconds when there is no broker."""

    def send(job_id: str) -> None:
        app.send_task(TRAIN, args=[job_id], expires=WAKEUP_EXPIRES_SECONDS, ignore_result=True)

    return send


def _transport_options(settings: Settings) -> dict[str, Any]:
    if settings.broker_url.startswith("filesystem:"):
        folders = {option: str(folder) for option, folder in broker_folders(settings).items()}
        return {**folders, "store_processed": True}  # else messages pass through the system's temporary folder
    fail_fast = {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}
    return {**fail_fast, "socket_connect_timeout": 2, "socket_timeout": 5, "socket_keepalive": True}
