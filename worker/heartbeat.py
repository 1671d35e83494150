"""Keeps a lease alive, and notices when it is lost or its job is to be cancelled."""

import threading
import time
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy import select

from store import jobs
from store.database import Database
from store.errors import LeaseLost
from store.lease import Lease, Wish
from store.settings import Settings
from store.states import JobStatus
from store.tables import Job
from worker.patience import TEMPORARY
from worker.trainer import Trainer

LOOK_SECONDS = 1.0
"""Between two looks whether a cancel was asked for."""
CANCEL_SECONDS = 5.0
"""From SIGTERM to SIGKILL for a trainer nobody wants any more."""


class Heartbeat:
    """A thread of its own, as renewals must not wait for a large checkpoint. Each one prolongs the trainer's life."""

    def __init__(self, database: Database, settings: Settings, lease: Lease, trainer: Trainer) -> None:
        self.cancelled = False
        self.lost = False
        self._database, self._settings, self._lease, self._trainer = database, settings, lease, trainer
        self._log = structlog.get_logger().bind(job_id=lease.job_id, attempt=lease.attempt)
        self._renew_at = time.monotonic() + settings.heartbeat_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(min(LOOK_SECONDS, self._settings.heartbeat_seconds)):
            try:
                self._beat()
            except LeaseLost:
                self.lost = True
                self._trainer.stop(within=0)
                return
            except TEMPORARY as error:
                self._log.warning("no heartbeat", error=type(error).__name__)
            except Exception:
                self._log.exception("no heartbeat")

    def _beat(self) -> None:
        asked = self._renew() if time.monotonic() >= self._renew_at else self._look()
        if asked and not self.cancelled:
            self.cancelled = True
            self._trainer.stop(within=min(CANCEL_SECONDS, self._settings.grace_seconds))

    def _renew(self) -> bool:
        started = time.monotonic()
        with self._database.write() as session:
            renewal = jobs.renew(session, self._lease, self._settings.lease_seconds)
            session.commit()
        self._renew_at = started + self._settings.heartbeat_seconds
        self._trainer.prolong(started + self._settings.fence_seconds)
        return renewal.wish is Wish.CANCEL

    def _look(self) -> bool:
        """Whether a cancel was asked for; cheap, writes nothing. Raises LeaseLost."""
        columns = select(Job.status, Job.attempt, Job.cancel_requested_at).where(Job.id == self._lease.job_id)
        with self._database.read() as session:
            row = session.execute(columns).one_or_none()
        if row is None or (row.status, row.attempt) != (JobStatus.RUNNING, self._lease.attempt):
            raise LeaseLost(f"Attempt {self._lease.attempt} no longer holds job {self._lease.job_id}.")
        return row.cancel_requested_at is not None
