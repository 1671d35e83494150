"""One attempt that runs the engine, for a job or a worker request: its lease, its process and its work folder."""

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

import structlog
from sqlalchemy.orm import Session

from frs.events import Outcome
from store.artifacts import unpacking
from store.artifacts.storage import open_artifacts
from store.db import queries
from store.db.database import Database
from store.db.tables import Job
from store.errors import LeaseLost
from store.settings import Settings
from worker.attempt import work_folder
from worker.attempt.database_retry import RetryingDatabase
from worker.attempt.heartbeat import Heartbeat
from worker.attempt.inputs import AttemptInputs
from worker.attempt.resolve import resolve_job
from worker.process.output import OutputLog
from worker.process.trainer import TrainerProcess

T = TypeVar("T")
_log = structlog.get_logger()


class Interruption(IntEnum):
    """Why an attempt ends early; the highest value takes precedence. From RELEASE on, no trainer is started."""

    NONE = 0
    STOP = 1
    """A user wants the training to end at the next step, with its weights kept and evaluated."""
    TIMEOUT = 2
    """A worker request took too long."""
    RELEASE = 3
    """The worker ends and returns the attempt to the queue."""
    PAUSE = 4
    """A user wants a checkpoint to be saved and the slot released."""
    CANCEL = 5
    """A user wants no result."""
    LEASE_LOST = 6
    """The attempt may write nothing more."""


_MAX_GRACE_SECONDS = {Interruption.TIMEOUT: 0.0, Interruption.CANCEL: 5.0, Interruption.LEASE_LOST: 0.0}
"""Longest time from SIGTERM to SIGKILL, where it is shorter than for other interruptions."""


class TrainerRun(ABC):
    """Base of the runs: owns the trainer, the heartbeat and the work folder of one attempt.

    `run` blocks the calling thread until the attempt has ended; `release` and `interrupt` may be called from any
    thread. A lost lease is logged. Unexpected errors are raised; the lease then expires.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        folder: Path,
        command: Sequence[str],
        gpus: Sequence[str] | None,
        *,
        stall_timeout_seconds: float,
        grace_seconds: float,
        log_fields: dict[str, str | int],
        network: bool = False,
    ) -> None:
        """`gpus` are the trainer's; None means that this host has none. It has `grace_seconds` to save its state.

        With `network`, the trainer may use the network whatever the operator's setting.
        """
        self.settings, self.folder = settings, folder
        self.artifacts = open_artifacts(settings)
        self.trainer = TrainerProcess(
            command,
            fence_at=time.monotonic() + settings.fence_seconds,
            stall_timeout_seconds=stall_timeout_seconds,
            gpus=gpus,
            network=network,
        )
        self.database = RetryingDatabase(database, is_abandoned=lambda: self.trainer.fenced)
        self.heartbeat = Heartbeat(settings, self.renew, self._poll, self._lose_lease, log_fields)
        self.output = OutputLog()
        self.outcome: Outcome | None = None
        """The trainer's outcome event."""
        self.interruption = Interruption.NONE
        self._interruption_lock = threading.Lock()
        self._sessions, self._grace_seconds, self._log_fields = database, grace_seconds, log_fields

    def release(self) -> None:
        """Return the attempt to the queue; the trainer may save a checkpoint within `grace_seconds`."""
        self.interrupt(Interruption.RELEASE)

    def interrupt(self, interruption: Interruption) -> None:
        """End the attempt early. Idempotent; a stop takes effect only once the work folder exists."""
        with self._interruption_lock:
            self.interruption = max(self.interruption, interruption)
        if interruption is Interruption.STOP:
            work_folder.request_stop(self.folder)
        elif interruption:
            self.trainer.stop(min(self._grace_seconds, _MAX_GRACE_SECONDS.get(interruption, math.inf)))

    def run(self) -> None:
        """Run the attempt. On return the trainer is dead; the attempt has ended, is queued or has a successor."""
        with structlog.contextvars.bound_contextvars(**self._log_fields):
            try:
                with self.heartbeat:
                    self._run()
            except LeaseLost as error:
                _log.warning("The lease was lost.", reason=error.message)
                self.trainer.kill()
                if self.interruption is not Interruption.LEASE_LOST:
                    self._return_late()
            finally:
                self.trainer.kill()
                work_folder.remove(self.folder)

    @abstractmethod
    def _run(self) -> None:
        """Run the attempt and write its end. Raises LeaseLost."""

    @abstractmethod
    def _renew_lease(self, session: Session) -> Interruption:
        """Renew the lease and return what is requested of the attempt. Raises LeaseLost."""

    def _query_request(self, session: Session) -> Interruption:
        """Return what is requested of the attempt, without a write. Raises LeaseLost."""
        return Interruption.NONE

    @abstractmethod
    def _return_to_queue(self, session: Session) -> object:
        """Return the attempt to the queue without counting it. Raises LeaseLost."""

    def _is_abandoned(self) -> bool:
        """Return whether the trainer should not be started any more."""
        return self.interruption >= Interruption.RELEASE or self.trainer.fenced

    def _prepare_spec(self, read_job: Callable[[Session], Job]) -> None:
        """Create the work folder with the job's resolved spec and the files that it refers to.

        Raises Abandoned, StorageFull and the errors of unpacking, resolving and fetching.
        """
        work_folder.create(self.settings, self.folder)
        for key in self.database.read(lambda session: queries.upload_keys(session, read_job(session))):
            unpacking.unpack_dataset(self.settings, self.artifacts, key, self._is_abandoned)
        inputs = AttemptInputs(self.folder)
        spec = self.database.read(lambda session: resolve_job(session, self.settings, read_job(session), inputs))
        (self.folder / work_folder.SPEC).write_text(spec.model_dump_json())
        inputs.fetch(self.artifacts, self._is_abandoned)

    def _write_end(self, finalize: Callable[[Session], T]) -> T:
        """Kill the trainer and commit how the attempt ended. Raises LeaseLost."""
        self.trainer.kill()
        if self.interruption is Interruption.LEASE_LOST:
            raise LeaseLost("Noticed by the heartbeat.")
        return self.database.write(finalize)

    def _return_late(self) -> None:
        """Return the attempt to the queue once the database answers again, unless it was requeued meanwhile."""
        database = RetryingDatabase(self._sessions, is_abandoned=lambda: self.interruption >= Interruption.RELEASE)
        with suppress(LeaseLost):
            database.write(self._return_to_queue)

    def renew(self) -> None:
        """Renew the lease, extend the trainer's fence and interrupt the run if a user requests it. Raises LeaseLost."""
        started = time.monotonic()
        with self._sessions.write() as session:
            interruption = self._renew_lease(session)
            session.commit()
        self.trainer.extend_fence(started + self.settings.fence_seconds)
        self.interrupt(interruption)

    def _poll(self) -> None:
        with self._sessions.read() as session:
            self.interrupt(self._query_request(session))

    def _lose_lease(self) -> None:
        self.interrupt(Interruption.LEASE_LOST)
