"""One attempt of a worker request: run a process of the engine, fenced like a trainer, and write its result."""

import errno
import json
import time
from collections.abc import Callable, Sequence
from functools import partial

import structlog
from sqlalchemy.orm import Session

from frs import events
from frs.errors import FrsError, StorageFull
from frs.events import ErrorInfo, Facts, Outcome
from store.artifacts import uploads
from store.artifacts.local_files import Abandoned
from store.artifacts.storage import delete_files
from store.db.database import Database
from store.db.tables import Document, Job
from store.requests import worker_requests
from store.requests.worker_requests import RequestLease
from store.scheduling.requirements import probe_job
from store.settings import Settings
from store.states import WAITING_HINTS, RequestKind, WaitingReason
from worker.attempt import finalizer, work_folder
from worker.attempt.trainer_run import Interruption, TrainerRun
from worker.process.pipes import Line
from worker.process.trainer import COMMAND

UPLOADED, IMPORTED = "uploaded/weights.bin", "imported/weights.safetensors"
"""Paths in the work folder. The folders differ because the process that reads the upload may write below the other
folder only."""
_End = Callable[[Session], list[str] | None]
"""Writes the end of an attempt and returns the keys of files that have become unused. Raises LeaseLost."""
_log = structlog.get_logger()


class RequestRun(TrainerRun):
    """Runs one attempt of a worker request. Failures are written to the request's row."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        lease: RequestLease,
        command: Sequence[str] = COMMAND,
        gpus: Sequence[str] | None = None,
    ) -> None:
        """`gpus` are the engine's; None means that this host has none."""
        folder = settings.work_root / lease.worker_request_id / str(lease.attempt)
        if lease.kind is RequestKind.PROBE:
            arguments = ["plan", "--spec", str(folder / work_folder.SPEC)]
        else:
            files = (str(folder / UPLOADED), str(folder / IMPORTED))
            arguments = ["import-weights", *files, "--sha256", lease.request["sha256"]]
            for name in ("description", "classes"):
                if lease.request.get(name):  # absent in requests of earlier versions
                    arguments += [f"--{name}", json.dumps(lease.request[name], ensure_ascii=False)]
        super().__init__(
            database,
            settings,
            folder,
            [*command, *arguments],
            gpus,
            stall_timeout_seconds=settings.request_timeout_seconds,
            grace_seconds=0,  # there is no state to save
            log_fields=lease.log_fields(),
        )
        self.lease = lease
        self.facts: Document = {}
        """Values of the engine's facts events: the result of the request."""

    def _run(self) -> None:
        delete_files(self.artifacts, *(self._write_end(self._run_engine()) or ()))

    def _renew_lease(self, session: Session) -> Interruption:
        worker_requests.renew(session, self.lease, self.settings.lease_seconds)
        return Interruption.NONE

    def _return_to_queue(self, session: Session) -> None:
        worker_requests.give_back(session, self.lease)

    def _run_engine(self) -> _End:
        """Run the engine and return how the attempt ends."""
        try:
            self._prepare()
            self.trainer.start()
            self._read_lines()
            return self._choose_end()
        except Abandoned:
            return self._return_to_queue
        except StorageFull as error:
            return self._wait_for_storage(error.message)
        except FrsError as error:
            return partial(self._finish, error=ErrorInfo(code=error.code, message=error.message, hint=error.hint))
        except OSError as error:
            is_out_of_memory = error.errno == errno.ENOMEM
            return self._wait_for_storage(finalizer.storage_message(error), attempt_counts=is_out_of_memory)

    def _prepare(self) -> None:
        """Create the work folder with the files that the engine reads."""
        if self.lease.kind is RequestKind.PROBE:
            self._prepare_spec(self._probe_job)
        else:
            work_folder.create(self.settings, self.folder)
            source, request = self.folder / UPLOADED, self.lease.request
            source.parent.mkdir()
            self.artifacts.fetch(request["key"], request["sha256"], source, self._is_abandoned)

    def _probe_job(self, _: Session) -> Job:
        return probe_job(self.lease.worker_request_id, self.lease.request, self.lease.owner)

    def _read_lines(self) -> None:
        """Handle the engine's lines until it is dead."""
        ends_at = time.monotonic() + self.settings.request_timeout_seconds
        for line in self.trainer.lines(timeout=1.0):
            if time.monotonic() > ends_at:
                self.interrupt(Interruption.TIMEOUT)
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

    def _choose_end(self) -> _End:
        if self.outcome is None:
            is_released = self.interruption >= Interruption.RELEASE
            return self._return_to_queue if is_released else self._end_without_outcome()
        error = self.outcome.error
        if error and error.code == StorageFull.code:
            return self._wait_for_storage(error.message)
        if error is None and self.lease.kind is RequestKind.IMPORT:
            self.artifacts.put(self.folder / IMPORTED, self._weights_key, str(self.facts["sha256"]))
        return partial(self._finish, error=error)

    def _end_without_outcome(self) -> _End:
        """Retry if the process was killed for another reason than the timeout; otherwise the request failed."""
        exit_code, hint = self.trainer.exit_code, "See the worker's log."
        if self.interruption is not Interruption.TIMEOUT and (exit_code is None or exit_code < 0):
            error = ErrorInfo(code="internal_error", message="The engine was killed.", hint=hint)
            return self._retry_later(error, 0.0, attempt_counts=True)
        message = f"The engine ended without an outcome.\n{self.output.tail}".strip()
        return partial(self._finish, error=ErrorInfo(code="internal_error", message=message, hint=hint))

    def _wait_for_storage(self, message: str, *, attempt_counts: bool = False) -> _End:
        code = WaitingReason.STORAGE
        error = ErrorInfo(code=code, message=message, hint=WAITING_HINTS[code])
        return self._retry_later(error, finalizer.STORAGE_DELAY, attempt_counts=attempt_counts)

    def _retry_later(self, error: ErrorInfo, delay: float, *, attempt_counts: bool) -> _End:
        """Return the end that lets a worker try again after `delay` seconds; the user sees the error meanwhile."""
        _log.warning("The worker request will be retried.", reason=error.message)
        retry = partial(worker_requests.retry_later, attempt_counts=attempt_counts)
        return partial(retry, lease=self.lease, error=error, delay=delay)

    def _finish(self, session: Session, error: ErrorInfo | None) -> list[str]:
        """Write the result and return the keys of files that have become unused."""
        worker_requests.finish(session, self.lease, result=None if error else self.facts, error=error)
        if self.lease.kind is not RequestKind.IMPORT:
            return []
        detector_id = self.lease.request["detector_id"]
        if error is not None:
            return uploads.refuse_import(session, detector_id, error)
        sha256, classes = str(self.facts["sha256"]), self.facts.get("classes")
        size = (self.folder / IMPORTED).stat().st_size
        return uploads.accept_import(session, detector_id, self._weights_key, sha256, size, classes)

    @property
    def _weights_key(self) -> str:
        return uploads.weights_key(self.lease.request["detector_id"], str(self.facts["sha256"]))
