"""Keeps a lease alive, and notices when it is lost or something is asked of its job."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy import select

from store.db.database import Database
from store.db.tables import Job
from store.errors import LeaseLost
from store.jobs import lifecycle
from store.jobs.lease import Lease, RequestedAction, requested_action
from store.settings import Settings
from store.states import JobStatus
from worker.attempt.database_retry import TRANSIENT_ERRORS
from worker.process.trainer import TrainerProcess

ACTION_POLL_SECONDS = 1.0
"""Between two looks whether something was asked for."""


class Heartbeat:
    """A thread of its own, as renewals must not wait for a large checkpoint. Each one prolongs the trainer's life."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        lease: Lease,
        trainer: TrainerProcess,
        heed: Callable[[RequestedAction], None],
    ) -> None:
        """`heed` is told what is asked of the job, again and again."""
        self.requested_action = RequestedAction.NONE
        self.lost = False
        self._database, self._settings, self._lease, self._trainer = database, settings, lease, trainer
        self._heed = heed
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
        while not self._ended.wait(min(ACTION_POLL_SECONDS, self._settings.heartbeat_seconds)):
            try:
                self._beat()
            except LeaseLost:
                self.lost = True
                self._trainer.stop(within=0)
                return
            except TRANSIENT_ERRORS as error:
                self._log.warning("no heartbeat", error=type(error).__name__)
            except Exception:
                self._log.exception("no heartbeat")

    def _beat(self) -> None:
        self.requested_action = max(
            self.requested_action, self._renew() if time.monotonic() >= self._renew_at else self._look()
        )
        if self.requested_action:
            self._heed(self.requested_action)

    def _renew(self) -> RequestedAction:
        started = time.monotonic()
        with self._database.write() as session:
            renewal = lifecycle.renew(session, self._lease, self._settings.lease_seconds)
            session.commit()
        self._renew_at = started + self._settings.heartbeat_seconds
        self._trainer.prolong(started + self._settings.fence_seconds)
        return renewal.requested_action

    def _look(self) -> RequestedAction:
        """What is asked of the job; cheap, writes nothing. Raises LeaseLost."""
        requests = (Job.cancel_requested_at, Job.pause_requested_at, Job.stop_requested_at)
        columns = select(Job.status, Job.attempt, *requests).where(Job.id == self._lease.job_id)
        with self._database.read() as session:
            row = session.execute(columns).one_or_none()
        if row is None or (row.status, row.attempt) != (JobStatus.RUNNING, self._lease.attempt):
            raise LeaseLost(f"Attempt {self._lease.attempt} no longer holds job {self._lease.job_id}.")
        return requested_action(row)
