"""One attempt of a worker request: run a process of the engine, fenced like a trainer, and write its result."""

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
from store.states import WAITING_HINTS, RequestKind, WaitingReason
from worker.attempt import work_folder
from worker.attempt.database_retry import TRANSIENT_ERRORS, backoff_delays
from worker.attempt.inputs import AttemptInputs
from worker.attempt.resolve import resolve_job
from worker.attempt.supervisor import storage_message
from worker.process.output import OutputLog
from worker.process.pipes import Line
from worker.process.trainer import COMMAND, TrainerProcess

UPLOADED, IMPORTED = "uploaded/weights.bin", "imported/weights.safetensors"
"""Paths in the work folder. The folders differ because the process that reads the upload may write below the other
folder only."""
STORAGE_DELAY = 30.0
"""Seconds until a request that waits for storage may be claimed again."""
_log = structlog.get_logger()


class RetryLater(Exception):
    """The failure is transient or specific to this worker, so the request is retried after `delay` seconds."""

    def __init__(self, error: ErrorInfo, delay: float = 0.0, *, attempt_counts: bool) -> None:
        """`error` is shown to the user meanwhile."""
        super().__init__(error.message)
        self.error, self.delay, self.attempt_counts = error, delay, attempt_counts


class RequestRun:
    """Runs one attempt of a worker request.

    It owns the engine's process and the work folder, and renews the lease itself. `run` blocks the calling thread until
    the attempt has ended; `release` may be called from any thread. A lost lease is logged; failures are written to the
    request's row. Unexpected errors are raised; the lease then expires.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        lease: RequestLease,
        command: Sequence[str] = COMMAND,
        gpus: Sequence[str] | None = None,
    ) -> None:
        """`gpus` are the engine's; None means that this host has none."""
        self.settings, self.lease = settings, lease
        self.folder = settings.work_root / lease.worker_request_id / str(lease.attempt)
        self.artifacts = open_artifacts(settings)
        self.output = OutputLog()
        self.facts: Document = {}
        """Values of the engine's facts events: the result of the request."""
        self.outcome: Outcome | None = None
        """The engine's outcome event."""
        self._database = database
        prepare = {RequestKind.PROBE: self._prepare_probe, RequestKind.IMPORT: self._prepare_import}
        self._prepare = prepare[lease.kind]
        self._command, self._gpus = command, gpus
        self._renew_at = time.monotonic() + settings.heartbeat_seconds
        self._released = threading.Event()
        self._process: TrainerProcess | None = None
        self._timed_out = False

    def release(self) -> None:
        """Return the request to the queue at once; there is no state to save."""
        self._released.set()
        if self._process is not None:
            self._process.stop(within=0)

    def run(self) -> None:
        """Run the attempt. On return the process is dead; the request has ended, is queued or has another attempt."""
        with structlog.contextvars.bound_contextvars(
            worker_request_id=self.lease.worker_request_id, attempt=self.lease.attempt
        ):
            try:
                self._write_with_retry(self._finish, self._execute())
            except RetryLater as retry:
                _log.warning("The worker request will be retried.", reason=str(retry))
                retry_later = partial(worker_requests.retry_later, attempt_counts=retry.attempt_counts)
                self._write_with_retry(retry_later, retry.error, retry.delay)
            except LeaseLost as error:
                _log.warning("The lease was lost.", reason=error.message)
            finally:
                if self._process is not None:
                    self._process.kill()
                work_folder.remove(self.folder)

    def _execute(self) -> ErrorInfo | None:
        """Do the work and return its error, if it failed. Raises RetryLater, LeaseLost."""
        try:
            work_folder.check_space(self.settings)
            work_folder.remove(self.folder)  # an attempt that was given back may have had the same number
            self.folder.mkdir(parents=True)
            self._run_engine(self._prepare())
            if self.outcome is None and not self._released.is_set():
                return self._missing_outcome()
            if self.lease.kind is RequestKind.IMPORT and self.outcome and not self.outcome.error:
                self._store_weights()
        except Abandoned:
            return None
        except StorageFull as error:
            raise RetryLater(_storage_error(error.message), STORAGE_DELAY, attempt_counts=False) from error
        except FrsError as error:
            return ErrorInfo(code=error.code, message=error.message, hint=error.hint)
        except OSError as error:
            is_out_of_memory = error.errno == errno.ENOMEM
            info = _storage_error(storage_message(error))
            raise RetryLater(info, STORAGE_DELAY, attempt_counts=is_out_of_memory) from error
        outcome_error = self.outcome.error if self.outcome else None
        if outcome_error is not None and outcome_error.code == StorageFull.code:
            raise RetryLater(_storage_error(outcome_error.message), STORAGE_DELAY, attempt_counts=False)
        return outcome_error

    def _prepare_probe(self) -> list[str]:
        """Write the resolved spec and fetch its files; return the engine's arguments."""
        job = probe_job(self.lease.worker_request_id, self.lease.request, self.lease.owner)
        inputs = AttemptInputs(self.folder)
        with self._database.read() as session:
            keys = [dataset.upload_key for dataset in queries.datasets_of(session, job)]
        for key in filter(None, keys):
            self._call_renewing(unpacking.unpack_dataset, self.settings, self.artifacts, key, self._released.is_set)
        with self._database.read() as session:
            resolved = resolve_job(session, self.settings, job, inputs)
        self._call_renewing(inputs.fetch, self.artifacts, self._released.is_set)
        spec = self.folder / work_folder.SPEC
        spec.write_text(resolved.model_dump_json())
        return ["plan", "--spec", str(spec)]

    def _prepare_import(self) -> list[str]:
        """Fetch the uploaded weights; return the engine's arguments."""
        source, sha256 = self.folder / UPLOADED, self.lease.request["sha256"]
        source.parent.mkdir()
        self._call_renewing(self.artifacts.fetch, self.lease.request["key"], sha256, source, self._released.is_set)
        return ["import-weights", str(source), str(self.folder / IMPORTED), "--sha256", sha256]

    def _run_engine(self, arguments: Sequence[str]) -> None:
        """Run the engine's process and handle its lines until it is dead."""
        now = time.monotonic()
        process = self._process = TrainerProcess(
            [*self._command, *arguments],
            fence_at=now + self.settings.fence_seconds,
            stall_timeout_seconds=self.settings.request_timeout_seconds,
            gpus=self._gpus,
        )
        if self._released.is_set():
            process.stop(within=0)
        process.start()
        for line in process.lines(timeout=min(1.0, self.settings.heartbeat_seconds)):
            self._renew_when_due()
            if time.monotonic() - now > self.settings.request_timeout_seconds:
                self._timed_out = True
                process.stop(within=0)
            if line is not None:
                self._handle_line(line)

    def _handle_line(self, line: Line) -> None:
        if line.source == "output":
            self.output.add(line.data)
            return
        try:
            event = events.parse(line.data)
        except ValueError:
            return
        match event:
            case Facts():
                self.facts |= event.values
            case Outcome():
                self.outcome = event

    def _missing_outcome(self) -> ErrorInfo:
        """Return the error of a process that ended without an outcome.

        Raises RetryLater if the process was killed for another reason than the timeout.
        """
        exit_code = self._process.exit_code if self._process else None
        if not self._timed_out and (exit_code is None or exit_code < 0):
            error = ErrorInfo(code="internal_error", message="The engine was killed.", hint="See the worker's log.")
            raise RetryLater(error, attempt_counts=True)
        message = f"The engine ended without an outcome.\n{self.output.tail}".strip()
        return ErrorInfo(code="internal_error", message=message, hint="See the worker's log.")

    def _store_weights(self) -> None:
        """Put the imported weights into the artifacts."""
        self._call_renewing(self.artifacts.put, self.folder / IMPORTED, self._weights_key, str(self.facts["sha256"]))

    def _call_renewing(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function that may take longer than the lease in another thread, and renew the lease meanwhile.

        Raises LeaseLost and the errors of the function.
        """
        with ThreadPoolExecutor(1) as threads:
            future = threads.submit(function, *arguments)
            try:
                while wait([future], timeout=min(1.0, self.settings.heartbeat_seconds)).not_done:
                    self._renew_when_due()
            except LeaseLost:
                self.release()
                raise
        future.result()

    def _renew_when_due(self) -> None:
        started = time.monotonic()
        if started < self._renew_at:
            return
        try:
            self._write(worker_requests.renew, self.settings.lease_seconds)
        except TRANSIENT_ERRORS as error:
            _log.warning("The lease could not be renewed.", error=type(error).__name__)
            return
        self._renew_at = started + self.settings.heartbeat_seconds
        if self._process is not None:
            self._process.extend_fence(started + self.settings.fence_seconds)

    def _finish(self, session: Session, lease: RequestLease, error: ErrorInfo | None) -> list[str]:
        """Write the result and return the keys of files that have become unused."""
        if self._released.is_set() and self.outcome is None:
            worker_requests.give_back(session, lease)
            return []
        worker_requests.finish(session, lease, result=None if error else self.facts, error=error)
        return self._finish_import(session, error) if lease.kind is RequestKind.IMPORT else []

    def _finish_import(self, session: Session, error: ErrorInfo | None) -> list[str]:
        detector_id = self.lease.request["detector_id"]
        if error is not None:
            return uploads.refuse_import(session, detector_id, error)
        sha256, classes = str(self.facts["sha256"]), self.facts.get("classes")
        return uploads.accept_import(session, detector_id, self._weights_key, sha256, classes)

    @property
    def _weights_key(self) -> str:
        return uploads.weights_key(self.lease.request["detector_id"], str(self.facts["sha256"]))

    def _write_with_retry(self, function: Callable[..., list[str] | None], *arguments: Any) -> None:
        delays = backoff_delays()
        until = time.monotonic() + self.settings.lease_seconds
        while True:
            try:
                return self._write(function, *arguments)
            except TRANSIENT_ERRORS as error:
                if time.monotonic() > until:
                    raise LeaseLost("The database was unavailable for longer than the lease.") from error
                time.sleep(next(delays))

    def _write(self, function: Callable[..., list[str] | None], *arguments: Any) -> None:
        """Commit `function(session, lease, ...)` and delete the files whose keys it returns."""
        with self._database.write() as session:
            unused_keys = function(session, self.lease, *arguments)
            session.commit()
        for key in unused_keys or []:
            try:
                self.artifacts.delete(key)
            except OSError as error:  # a superfluous file does no harm
                _log.warning("An artifact could not be deleted.", key=key, error=str(error))


def _storage_error(message: str) -> ErrorInfo:
    return ErrorInfo(code=WaitingReason.STORAGE, message=message, hint=WAITING_HINTS[WaitingReason.STORAGE])
