"""Wake-ups: Celery messages that make an idle worker query the queue at once.

They may be lost or delivered twice; only the database is authoritative.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import Celery

from store.artifacts import local_files
from store.settings import Settings

TRAIN = "train"
"""Name of the only task; its argument is a job id."""
QUEUE = "frs"
"""Name of the message queue."""
WAKEUP_EXPIRES_SECONDS = 300
"""Expiry of a wake-up: a backlog of stale ones drains slowly, and idle workers query the database anyway."""
MAX_PENDING = 64
"""Maximum number of wake-ups that wait to be sent; further ones are dropped."""
SEND_INTERVAL_SECONDS = 0.05
"""Delay between two wake-ups, so that under a flood of requests sending takes no time from the responses."""
_log = logging.getLogger(__name__)


def celery_app(settings: Settings) -> Celery:
    """Return the Celery app of the configured broker."""
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
        broker_connection_max_retries=None,  # a worker waits indefinitely for its broker
        broker_connection_retry_on_startup=True,
        broker_transport_options=_transport_options(settings),
    )
    return app


def broker_folders(settings: Settings) -> dict[str, Path]:
    """Return the folders of Celery's `filesystem://` transport, by the names of its options."""
    messages = settings.broker_folder / "messages"
    return {
        "data_folder_in": messages,
        "data_folder_out": messages,
        "control_folder": settings.broker_folder / "control",
        "processed_folder": settings.broker_folder / "processed",
    }


def remove_read(settings: Settings) -> None:
    """Delete messages that the `filesystem://` transport keeps after they were read, long after they have expired."""
    folder = broker_folders(settings)["processed_folder"]
    if folder.is_dir():
        stale = local_files.filesystem_time(folder) - local_files.STALE_SECONDS
        for path in folder.iterdir():
            with suppress(FileNotFoundError):  # another worker has deleted it
                if path.lstat().st_mtime < stale:
                    path.unlink()


class Wakeups:
    """A bounded queue and a thread that sends from it: `enqueue` returns immediately, even without a broker."""

    def __init__(self, send: Callable[[str], None], size: int = MAX_PENDING) -> None:
        self.dropped = 0
        """Number of wake-ups dropped because the queue was full."""
        self._send = send
        self._waiting: queue.Queue[str | None] = queue.Queue(size)
        self._thread = threading.Thread(target=self._run, name="wakeups", daemon=True)
        self._thread.start()

    def enqueue(self, job_id: str) -> None:
        """Queue a wake-up for the job. Never blocks or raises.

        If the queue is full the wake-up is dropped: those already queued wake enough workers.
        """
        try:
            self._waiting.put_nowait(job_id)
        except queue.Full:
            self.dropped += 1

    def close(self, timeout: float = 2.0) -> None:
        """Stop the thread, after waiting up to `timeout` seconds for the queued wake-ups to be sent."""
        try:
            self._waiting.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _run(self) -> None:
        while (job_id := self._waiting.get()) is not None:
            try:
                self._send(job_id)
            except Exception as error:  # any error of the broker's client: wake-ups are best effort
                _log.warning("wake-up not sent: %s", error, extra={"job_id": job_id})
            time.sleep(SEND_INTERVAL_SECONDS)


def wakeup_sender(app: Celery) -> Callable[[str], None]:
    """Return a function that sends the wake-up of a job.

    It raises within seconds if the broker is unavailable.
    """

    def send(job_id: str) -> None:
        app.send_task(TRAIN, args=[job_id], expires=WAKEUP_EXPIRES_SECONDS, ignore_result=True)

    return send


def _transport_options(settings: Settings) -> dict[str, Any]:
    if settings.broker_url.startswith("filesystem:"):
        folders = {option: str(folder) for option, folder in broker_folders(settings).items()}
        return {**folders, "store_processed": True}  # otherwise messages go to the temporary folder
    fail_fast = {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}
    return {**fail_fast, "socket_connect_timeout": 2, "socket_timeout": 5, "socket_keepalive": True}
