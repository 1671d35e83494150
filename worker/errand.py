"""Runs one errand to its end: a process of the engine, fenced and killed as a trainer is, and what it found written down."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from sqlalchemy.orm import Session

from frs import events
from frs.errors import FrsError
from frs.events import Facts, Outcome, Problem
from store import errands, uploads
from store.artifacts import Artifacts
from store.database import Database
from store.errands import ErrandLease
from store.errors import LeaseLost
from store.settings import Settings
from store.states import ErrandKind
from store.tables import Document, Job
from worker import workfolder
from worker.output import Output
from worker.patience import TEMPORARY, pauses
from worker.pipes import Line
from worker.rendering import render
from worker.trainer import COMMAND, Trainer

IMPORTED = "imported.safetensors"
_log = structlog.get_logger()


class Errand:
    """`run` blocks; `release` may be called from anywhere."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        lease: ErrandLease,
        command: Sequence[str] = COMMAND,
        gpus: Sequence[str] | None = None,
    ) -> None:
        self.settings, self.lease = settings, lease
        self.folder = settings.work_root / lease.errand_id / str(lease.attempt)
        self.artifacts = Artifacts(settings.artifacts_root)
        self.output = Output()
        self.found: Document = {}
        self.outcome: Outcome | None = None
        self._database = database
        self._arguments = {ErrandKind.PROBE: self._probe, ErrandKind.IMPORT: self._import}[lease.kind]
        self._command, self._gpus = command, gpus
        self._renew_at = time.monotonic() + settings.heartbeat_seconds
        self._released = threading.Event()
        self._trainer: Trainer | None = None

    def release(self) -> None:
        """Gives it back at once: there is nothing to save."""
        self._released.set()
        if self._trainer is not None:
            self._trainer.stop(within=0)

    def run(self) -> None:
        with structlog.contextvars.bound_contextvars(errand_id=self.lease.errand_id, attempt=self.lease.attempt):
            try:
                self._settle(self._problem())
            except LeaseLost as error:
                _log.warning("lease lost", said=error.message)
            finally:
                if self._trainer is not None:
                    self._trainer.end()
                workfolder.remove(self.folder)

    def _problem(self) -> Problem | None:
        """Does the work; what went wrong with it, if anything did."""
        try:
            workfolder.check_space(self.settings)
            workfolder.remove(self.folder)  # of an attempt of that number which was given back
            self.folder.mkdir(parents=True)
            self._follow(self._arguments())
        except FrsError as error:
            return Problem(code=error.code, message=error.message, hint=error.hint)
        except OSError as error:
            return Problem(code="storage_full", message=f"A file could not be written: {error.strerror}.")
        if self.outcome is not None:
            return self.outcome.error
        said = f"The engine ended without a word.\n{self.output.tail}".strip()
        return Problem(code="internal_error", message=said, hint="See the worker's log.")

    def _probe(self) -> list[str]:
        request = self.lease.request
        asked = Job(spec=request["spec"], dataset_id=request["dataset_id"], owner=self.lease.owner)
        with self._database.read() as session:
            resolved = render(session, self.settings, asked)
        spec = self.folder / workfolder.SPEC
        spec.write_text(resolved.model_dump_json())
        return ["plan", "--spec", str(spec)]

    def _import(self) -> list[str]:
        source = self.artifacts.path(self.lease.request["key"])
        sha256 = self.lease.request["sha256"]
        return ["import-weights", str(source), str(self.folder / IMPORTED), "--sha256", sha256]

    def _follow(self, arguments: Sequence[str]) -> None:
        """Until its process is dead."""
        now = time.monotonic()
        trainer = self._trainer = Trainer(
            [*self._command, *arguments],
            live_until=now + self.settings.fence_seconds,
            hang_seconds=self.settings.errand_seconds,
            gpus=self._gpus,
        )
        if self._released.is_set():
            trainer.stop(within=0)
        trainer.start()
        for line in trainer.lines(patience=min(1.0, self.settings.heartbeat_seconds)):
            self._renew_when_due(trainer)
            if time.monotonic() - now > self.settings.errand_seconds:
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

    def _renew_when_due(self, trainer: Trainer) -> None:
        started = time.monotonic()
        if started < self._renew_at:
            return
        try:
            self._write(errands.renew, self.settings.lease_seconds)
        except TEMPORARY as error:
            _log.warning("no heartbeat", error=type(error).__name__)
            return
        self._renew_at = started + self.settings.heartbeat_seconds
        trainer.prolong(started + self.settings.fence_seconds)

    def _settle(self, problem: Problem | None) -> None:
        waiting = pauses()
        until = time.monotonic() + self.settings.lease_seconds
        while True:
            try:
                return self._write(self._end, problem)
            except TEMPORARY as error:
                if time.monotonic() > until:
                    raise LeaseLost("The database has been away for longer than the lease.") from error
                time.sleep(next(waiting))

    def _end(self, session: Session, lease: ErrandLease, problem: Problem | None) -> list[str]:
        """Returns the keys of files that nobody needs any more."""
        if self._released.is_set() and self.outcome is None:
            errands.give_back(session, lease)
            return []
        errands.settle(session, lease, result=None if problem else self.found, error=problem)
        return self._end_import(session, problem) if lease.kind is ErrandKind.IMPORT else []

    def _end_import(self, session: Session, problem: Problem | None) -> list[str]:
        detector_id = self.lease.request["detector_id"]
        if problem is not None:
            return uploads.refuse_import(session, detector_id, problem)
        sha256 = str(self.found["sha256"])
        key = uploads.weights_key(detector_id, sha256)
        self.artifacts.put(self.folder / IMPORTED, key, sha256)
        return uploads.accept_import(session, detector_id, key, sha256, self.found.get("classes"))

    def _write(self, function: Callable[..., list[str] | None], *arguments: Any) -> None:
        with self._database.write() as session:
            unused = function(session, self.lease, *arguments)
            session.commit()
        for key in unused or []:
            self.artifacts.delete(key)
