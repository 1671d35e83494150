"""Renewal of a job's lease, and detection of a lost lease or a requested action."""

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
"""Interval of the queries for a requested action."""


class Heartbeat:
    """Renews the lease every `heartbeat_seconds`; every renewal extends the trainer's fence.

    A context manager that owns the thread `heartbeat`, because renewals must not wait for a large checkpoint. When the
    lease is lost, the thread stops the trainer, sets `lost` and ends. It raises nothing: transient errors are logged.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        lease: Lease,
        trainer: TrainerProcess,
        on_requested_action: Callable[[RequestedAction], None],
    ) -> None:
        """`on_requested_action` is called by the thread at every beat once an action is requested."""
        self.requested_action = RequestedAction.NONE
        """The action of highest precedence that was requested so far."""
        self.lost = False
        """Whether the attempt no longer holds the lease."""
        self._database, self._settings, self._lease, self._trainer = database, settings, lease, trainer
        self._on_requested_action = on_requested_action
        self._log = structlog.get_logger().bind(**lease.log_fields())
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
                self._log.warning("The lease could not be renewed.", error=type(error).__name__)
            except Exception:
                self._log.exception("The lease could not be renewed.")

    def _beat(self) -> None:
        is_due = time.monotonic() >= self._renew_at
        self.requested_action = max(self.requested_action, self._renew() if is_due else self._query_action())
        if self.requested_action:
            self._on_requested_action(self.requested_action)

    def _renew(self) -> RequestedAction:
        started = time.monotonic()
        with self._database.write() as session:
            renewal = lifecycle.renew(session, self._lease, self._settings.lease_seconds)
            session.commit()
        self._renew_at = started + self._settings.heartbeat_seconds
        self._trainer.extend_fence(started + self._settings.fence_seconds)
        return renewal.requested_action

    def _query_action(self) -> RequestedAction:
        """Return the requested action by a query that writes nothing. Raises LeaseLost."""
        requests = (Job.cancel_requested_at, Job.pause_requested_at, Job.stop_requested_at)
        columns = select(Job.status, Job.attempt, *requests).where(Job.id == self._lease.job_id)
        with self._database.read() as session:
            row = session.execute(columns).one_or_none()
        if row is None or (row.status, row.attempt) != (JobStatus.RUNNING, self._lease.attempt):
            raise LeaseLost(f"Attempt {self._lease.attempt} no longer holds job {self._lease.job_id}.")
        return requested_action(row)
