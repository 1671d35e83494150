"""Everything one attempt tells the store, in the order its trainer told it."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy.orm import Session, sessionmaker

from frs.errors import FrsError
from frs.events import Artifact, Checkpoint, ErrorInfo, Log
from frs.resolved import inside
from store.artifacts.storage import Artifacts
from store.db.commits import RetryableTransaction
from store.db.database import Database
from store.errors import ArtifactCorrupt, ArtifactNotFound, LeaseLost
from store.jobs import recording
from store.jobs.lease import Lease
from store.jobs.recording import PersistedEvent
from worker.attempt.database_retry import TRANSIENT_ERRORS, backoff_delays

BATCH = 500
FLUSH_SECONDS = 0.5
File = Checkpoint | Artifact
T = TypeVar("T")
_log = structlog.get_logger()


class AttemptRecorder:
    """Raises LeaseLost, OSError where the artifacts cannot take a file, and nothing else about what a trainer says."""

    def __init__(
        self, database: Database, artifacts: Artifacts, lease: Lease, folder: Path, give_up: Callable[[], bool]
    ) -> None:
        """`give_up` says when to stop waiting for a database that does not answer."""
        self.refused: ErrorInfo | None = None
        """The first deliverable that was not what the trainer said."""
        self._database, self._artifacts, self._lease = database, artifacts, lease
        self._folder = folder
        self._give_up = give_up
        self._events: list[PersistedEvent] = []
        self._since = 0.0

    def read(self, function: Callable[[Session], T]) -> T:
        return self._patiently(self._database.read, function)

    def write(self, function: Callable[..., T], *arguments: Any) -> T:
        """`function(session, lease, ...)`, committed once; tried again while the database is away. Raises LeaseLost."""
        transaction = RetryableTransaction[T](lambda session: function(session, self._lease, *arguments))
        return self._patiently(self._database.write, transaction)

    def add(self, *events: PersistedEvent) -> None:
        if not self._events:
            self._since = time.monotonic()
        self._events += events
        if len(self._events) >= BATCH or time.monotonic() - self._since > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        events, self._events = self._events, []
        if events:
            self._record(events)

    def keep(self, file: File) -> None:
        """Puts a file into the artifacts, then its row into the database: a row means the file is there."""
        self.flush()
        try:
            key = self._key(file)
            self._artifacts.put(self._find(file), key, file.sha256)
        except (FileNotFoundError, ArtifactNotFound):
            self._gone(file)
        except (FrsError, ValueError) as error:
            self._refuse(file, str(error))
        else:
            unneeded: set[str] = set()  # also by a commit that was one although it seemed to fail
            self.write(_record_file, file, key, unneeded)
            self._forget(unneeded)

    def _patiently(self, sessions: sessionmaker[Session], function: Callable[[Session], T]) -> T:
        waiting = backoff_delays()
        while True:
            try:
                with sessions() as session:
                    return function(session)
            except TRANSIENT_ERRORS as error:
                if self._give_up():
                    raise LeaseLost("The database has been away for longer than this attempt may run.") from error
                _log.warning("database away", error=type(error).__name__)
                time.sleep(next(waiting))

    def _record(self, events: Sequence[PersistedEvent]) -> None:
        """Writes a batch; where the database cannot hold it, event by event, for one bad event spoils no other."""
        try:
            self.write(recording.record, events)
        except LeaseLost:
            raise
        except Exception as error:
            if len(events) > 1:
                for event in events:
                    self._record([event])
            else:
                said = f"An event of type {events[0].type} cannot be recorded: {type(error).__name__}."
                self.write(recording.record, [Log(level="warning", message=said)])

    def _key(self, file: File) -> str:
        if isinstance(file, Checkpoint):
            return recording.checkpoint_key(self._lease, file)
        return recording.artifact_key(self._lease, file)

    def _find(self, file: File) -> Path:
        """Raises InvalidSpec for a path outside the work folder, ArtifactNotFound, ArtifactCorrupt."""
        path = inside(self._folder, file.path)
        if (size := _size(path)) != file.bytes:
            raise ArtifactCorrupt(f"It has {size} bytes, announced were {file.bytes}.")
        return path

    def _gone(self, file: File) -> None:
        if isinstance(file, Checkpoint) and file.kind == "training":
            self.add(Log(message=f"The checkpoint of step {file.step} was superseded before it could be kept."))
        else:
            self._refuse(file, "It is not there.")

    def _refuse(self, file: File, why: str) -> None:
        said = f"The {file.type} {file.path[:200]!a} was refused. {why[:500]}"
        _log.warning("file refused", said=said)
        self.add(Log(level="error", message=said))
        if not (isinstance(file, Checkpoint) and file.kind == "training"):
            self.refused = self.refused or ErrorInfo(code="internal_error", message=said, hint="See the job's log.")

    def _forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            try:
                self._artifacts.delete(key)
            except OSError as error:  # a file too many harms nobody
                _log.warning("artifact not deleted", key=key, error=str(error))


def _size(path: Path) -> int:
    """Raises ArtifactNotFound, also for a name no file can have."""
    with suppress(OSError):
        if path.is_file():
            return path.stat().st_size
    raise ArtifactNotFound("There is no such file.")


def _record_file(session: Session, lease: Lease, file: File, key: str, unneeded: set[str]) -> None:
    """Adds the keys that nobody needs any more."""
    if isinstance(file, Artifact):
        unneeded.update(recording.record_artifact(session, lease, file, key))
    else:
        recording.record_checkpoint(session, lease, file, key)
        unneeded.update(recording.prune_checkpoints(session, lease))
