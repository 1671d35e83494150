"""Runs one worker_request to its end: a process of the engine, fenced and killed as a trainer is, and what it found written down."""

import errno
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import structlog
from sqlalchemy.orm import Session

from frs import events
from frs.errors import FrsError, StorageFull
from frs.events import ErrorInfo, Facts, Outcome
from store.artifacts import unpacking, uploads
from store.artifacts.local_files import Abandoned
from store.artifacts.storage import open_artifacts
from store.db import queries
from store.db.database import Database
from store.db.tables import Document
from store.errors import LeaseLost
from store.requests import worker_requests
from store.requests.worker_requests import RequestLease
from store.scheduling.requirements import probe_job
from store.settings import Settings
from store.states import RequestKind
from worker.attempt import work_folder
from worker.attempt.database_retry import TRANSIENT_ERRORS, backoff_delays
from worker.attempt.inputs import AttemptInputs
from worker.attempt.resolve import resolve_job
from worker.attempt.supervisor import storage_message
from worker.process.output import Output
from worker.process.pipes import Line
from worker.process.trainer import COMMAND, TrainerProcess

UPLOADED, IMPORTED = "uploaded/weights.bin", "imported/weights.safetensors"
"""Apart, for the process that reads the first may write below the folder of the second alone."""
STORAGE_DELAY = 30.0
_log = structlog.get_logger()


class RetryLater(Exception):
    """What failed passes by itself, or with another worker."""

    def __init__(self, why: str, delay: float = 0.0, *, attempt_counts: bool) -> None:
        super().__init__(why)
        self.delay, self.attempt_counts = delay, attempt_counts


class RequestRun:
    """`run` blocks; `release` may be called from anywhere."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        lease: RequestLease,
        command: Sequence[str] = COMMAND,
        gpus: Sequence[str] | None = None,
    ) -> None:
        self.settings, self.lease = settings, lease
        self.folder = settings.work_root / lease.worker_request_id / str(lease.attempt)
        self.artifacts = open_artifacts(settings)
        self.output = Output()
        self.found: Document = {}
        self.outcome: Outcome | None = None
        self._database = database
        self._arguments = {RequestKind.PROBE: self._probe, RequestKind.IMPORT: self._import}[lease.kind]
        self._command, self._gpus = command, gpus
        self._renew_at = time.monotonic() + settings.heartbeat_seconds
        self._released = threading.Event()
        self._trainer: TrainerProcess | None = None
        self._timed_out = False

    def release(self) -> None:
        """Gives it back at once: there is nothing to save."""
        self._released.set()
        if self._trainer is not None:
            self._trainer.stop(within=0)

    def run(self) -> None:
        with structlog.contextvars.bound_contextvars(
            worker_request_id=self.lease.worker_request_id, attempt=self.lease.attempt
        ):
            try:
                self._settle(self._end, self._problem())
            except RetryLater as again:
                _log.warning("worker_request put off", said=str(again))
                self._settle(
                    partial(worker_requests.retry_later, delay=again.delay, attempt_counts=again.attempt_counts)
                )
            except LeaseLost as error:
                _log.warning("lease lost", said=error.message)
            finally:
                if self._trainer is not None:
                    self._trainer.end()
                work_folder.remove(self.folder)

    def _problem(self) -> ErrorInfo | None:
        """Does the work; what went wrong with it, if anything did. Raises RetryLater."""
        try:
            work_folder.check_space(self.settings)
            work_folder.remove(self.folder)  # of an attempt of that number which was given back
            self.folder.mkdir(parents=True)
            self._follow(self._arguments())
            if self.outcome is None and not self._released.is_set():
                return self._died()
            if self.lease.kind is RequestKind.IMPORT and self.outcome and not self.outcome.error:
                self._keep_weights()
        except Abandoned:
            return None
        except StorageFull as error:
            raise RetryLater(error.message, STORAGE_DELAY, attempt_counts=False) from error
        except FrsError as error:
            return ErrorInfo(code=error.code, message=error.message, hint=error.hint)
        except OSError as error:
            was_killed = error.errno == errno.ENOMEM
            raise RetryLater(storage_message(error), STORAGE_DELAY, attempt_counts=was_killed) from error
        problem = self.outcome.error if self.outcome else None
        if problem is not None and problem.code == StorageFull.code:
            raise RetryLater(problem.message, STORAGE_DELAY, attempt_counts=False)
        return problem

    def _died(self) -> ErrorInfo:
        """Of a process that ended without a word. Raises RetryLater where it was killed, unless it had taken too long."""
        exit_code = self._trainer.exit_code if self._trainer else None
        if not self._timed_out and (exit_code is None or exit_code < 0):
            raise RetryLater("The engine was killed.", attempt_counts=True)
        said = f"The engine ended without a word.\n{self.output.tail}".strip()
        return ErrorInfo(code="internal_error", message=said, hint="See the worker's log.")

    def _probe(self) -> list[str]:
        asked = probe_job(self.lease.worker_request_id, self.lease.request, self.lease.owner)
        inputs = AttemptInputs(self.folder)
        with self._database.read() as session:
            keys = [dataset.upload_key for dataset in queries.datasets_of(session, asked)]
        for key in filter(None, keys):
            self._meanwhile(unpacking.unpack_dataset, self.settings, self.artifacts, key, self._released.is_set)
        with self._database.read() as session:
            resolved = resolve_job(session, self.settings, asked, inputs)
        self._meanwhile(inputs.fetch, self.artifacts, self._released.is_set)
        spec = self.folder / work_folder.SPEC
        spec.write_text(resolved.model_dump_json())
        return ["plan", "--spec", str(spec)]

    def _import(self) -> list[str]:
        source, sha256 = self.folder / UPLOADED, self.lease.request["sha256"]
        source.parent.mkdir()
        self._meanwhile(self.artifacts.fetch, self.lease.request["key"], sha256, source, self._released.is_set)
        return ["import-weights", str(source), str(self.folder / IMPORTED), "--sha256", sha256]

    def _follow(self, arguments: Sequence[str]) -> None:
        """Until its process is dead."""
        now = time.monotonic()
        trainer = self._trainer = TrainerProcess(
            [*self._command, *arguments],
            live_until=now + self.settings.fence_seconds,
            stall_timeout_seconds=self.settings.request_timeout_seconds,
            gpus=self._gpus,
        )
        if self._released.is_set():
            trainer.stop(within=0)
        trainer.start()
        for line in trainer.lines(patience=min(1.0, self.settings.heartbeat_seconds)):
            self._renew_when_due()
            if time.monotonic() - now > self.settings.request_timeout_seconds:
                self._timed_out = True
                trainer.stop(within=0)
            if line is not None:
                self._take(line)

    def _take(self, line: Line) -> None:
        if line.source == "output":
            self.output.take(line.data)
            return
        try:
            event = events.parse(line.data)
        except ValueError:
            return
        match event:
            case Facts():
                self.found |= event.values
            case Outcome():
                self.outcome = event

    def _renew_when_due(self) -> None:
        started = time.monotonic()
        if started < self._renew_at:
            return
        try:
            self._write(worker_requests.renew, self.settings.lease_seconds)
        except TRANSIENT_ERRORS as error:
            _log.warning("no heartbeat", error=type(error).__name__)
            return
        self._renew_at = started + self.settings.heartbeat_seconds
        if self._trainer is not None:
            self._trainer.prolong(started + self.settings.fence_seconds)

    def _keep_weights(self) -> None:
        """Puts them into the artifacts."""
        self._meanwhile(self.artifacts.put, self.folder / IMPORTED, self._weights_key, str(self.found["sha256"]))

    def _meanwhile(self, work: Callable[..., object], *arguments: object) -> None:
        """For what may take longer than the lease: it is renewed meanwhile. Raises LeaseLost, and what `work` does."""
        with ThreadPoolExecutor(1) as threads:
            done = threads.submit(work, *arguments)
            try:
                while wait([done], timeout=min(1.0, self.settings.heartbeat_seconds)).not_done:
                    self._renew_when_due()
            except LeaseLost:
                self.release()
                raise
        done.result()

    @property
    def _weights_key(self) -> str:
        return uploads.weights_key(self.lease.request["detector_id"], str(self.found["sha256"]))

    def _settle(self, function: Callable[..., list[str] | None], *arguments: Any) -> None:
        waiting = backoff_delays()
        until = time.monotonic() + self.settings.lease_seconds
        while True:
            try:
                return self._write(function, *arguments)
            except TRANSIENT_ERRORS as error:
                if time.monotonic() > until:
                    raise LeaseLost("The database has been away for longer than the lease.") from error
                time.sleep(next(waiting))

    def _end(self, session: Session, lease: RequestLease, problem: ErrorInfo | None) -> list[str]:
        """Returns the keys of files that nobody needs any more."""
        if self._released.is_set() and self.outcome is None:
            worker_requests.give_back(session, lease)
            return []
        worker_requests.finish(session, lease, result=None if problem else self.found, error=problem)
        return self._end_import(session, problem) if lease.kind is RequestKind.IMPORT else []

    def _end_import(self, session: Session, problem: ErrorInfo | None) -> list[str]:
        detector_id = self.lease.request["detector_id"]
        if problem is not None:
            return uploads.refuse_import(session, detector_id, problem)
        sha256, classes = str(self.found["sha256"]), self.found.get("classes")
        return uploads.accept_import(session, detector_id, self._weights_key, sha256, classes)

    def _write(self, function: Callable[..., list[str] | None], *arguments: Any) -> None:
        with self._database.write() as session:
            unused = function(session, self.lease, *arguments)
            session.commit()
        for key in unused or []:
            try:
                self.artifacts.delete(key)
            except OSError as error:  # a file too many harms nobody
                _log.warning("artifact not deleted", key=key, error=str(error))
