"""Writes of one attempt to the database and the artifacts, in the order of the trainer's events."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import structlog
from sqlalchemy.orm import Session

from frs.errors import FrsError
from frs.events import Artifact, Checkpoint, ErrorInfo, Log
from frs.resolved import inside
from store.artifacts.storage import Artifacts, delete_files
from store.errors import ArtifactCorrupt, ArtifactNotFound, LeaseLost
from store.jobs import checkpoints, recording
from store.jobs.lease import Lease
from store.jobs.recording import PersistedEvent
from worker.attempt.database_retry import RetryingDatabase
from worker.tracking.job_tracking import JobTracking

BATCH = 500
"""Events after which a batch is written."""
FLUSH_SECONDS = 0.5
"""Age of the oldest buffered event after which a batch is written."""
File = Checkpoint | Artifact
_log = structlog.get_logger()


class AttemptRecorder:
    """Buffers and writes the events of an attempt, stores its files, and forwards what is written to the trackers.

    Only the supervisor's thread may use it. Every method may raise LeaseLost, and `store` OSError if the artifacts
    cannot be written. Invalid events and files are logged and raise nothing.
    """

    def __init__(
        self, database: RetryingDatabase, artifacts: Artifacts, lease: Lease, folder: Path, tracking: JobTracking
    ) -> None:
        self.rejection: ErrorInfo | None = None
        """The error of the first rejected file other than a training checkpoint."""
        self._database, self._artifacts, self._lease = database, artifacts, lease
        self._folder, self._tracking = folder, tracking
        self._events: list[PersistedEvent] = []
        self._oldest_at = 0.0

    def add(self, *events: PersistedEvent) -> None:
        """Buffer the events; write the buffer if it is large or old."""
        if not self._events:
            self._oldest_at = time.monotonic()
        self._events += events
        if len(self._events) >= BATCH or time.monotonic() - self._oldest_at > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the buffered events."""
        events, self._events = self._events, []
        if events:
            self._write_events(events)

    def store(self, file: File) -> None:
        """Put a file into the artifacts, then its row into the database, so that every row has its file."""
        self.flush()
        try:
            key = self._artifact_key(file)
            self._artifacts.put(self._checked_path(file), key, file.sha256)
        except (FileNotFoundError, ArtifactNotFound):
            self._handle_missing(file)
        except (FrsError, ValueError) as error:
            self._reject(file, str(error))
        else:
            unused_keys: set[str] = set()  # filled even if a commit succeeds but seems to fail
            self._database.write(lambda session: _record_file(session, self._lease, file, key, unused_keys))
            delete_files(self._artifacts, *unused_keys)
            self._tracking.add_file(file, key)

    def _write_events(self, events: Sequence[PersistedEvent]) -> None:
        """Write a batch. If the database rejects it, write event by event, so that one bad event loses no other."""
        try:
            self._record(events)
        except LeaseLost:
            raise
        except Exception as error:
            if len(events) > 1:
                for event in events:
                    self._write_events([event])
            else:
                message = f"An event of type {events[0].type} cannot be recorded: {type(error).__name__}."
                self._record([Log(level="warning", message=message)])

    def _record(self, events: Sequence[PersistedEvent]) -> None:
        self._database.write(lambda session: recording.record(session, self._lease, events))
        self._tracking.add_events(events)

    def _artifact_key(self, file: File) -> str:
        if isinstance(file, Checkpoint):
            return recording.checkpoint_key(self._lease, file)
        return recording.artifact_key(self._lease, file)

    def _checked_path(self, file: File) -> Path:
        """Return the file's path.

        Raises InvalidSpec for a path outside the work folder, ArtifactNotFound, ArtifactCorrupt.
        """
        path = inside(self._folder, file.path)
        if (size := _size(path)) != file.bytes:
            raise ArtifactCorrupt(f"It has {size} bytes; the trainer reported {file.bytes}.")
        return path

    def _handle_missing(self, file: File) -> None:
        if isinstance(file, Checkpoint) and file.kind == "training":
            self.add(Log(message=f"The checkpoint of step {file.step} was superseded before it could be stored."))
        else:
            self._reject(file, "It does not exist.")

    def _reject(self, file: File, reason: str) -> None:
        message = f"The {file.type} {file.path[:200]!a} was rejected. {reason[:500]}"
        _log.warning("A file was rejected.", reason=message)
        self.add(Log(level="error", message=message))
        if not (isinstance(file, Checkpoint) and file.kind == "training"):
            self.rejection = self.rejection or ErrorInfo(
                code="internal_error", message=message, hint="See the job's log."
            )


def _size(path: Path) -> int:
    """Return the size in bytes. Raises ArtifactNotFound, also for a name that no file can have."""
    with suppress(OSError):
        if path.is_file():
            return path.stat().st_size
    raise ArtifactNotFound("The file does not exist.")


def _record_file(session: Session, lease: Lease, file: File, key: str, unused_keys: set[str]) -> None:
    """Write the file's row, and add the keys of files that have become unused to `unused_keys`."""
    if isinstance(file, Artifact):
        unused_keys.update(recording.record_artifact(session, lease, file, key))
    else:
        recording.record_checkpoint(session, lease, file, key)
        unused_keys.update(checkpoints.prune_checkpoints(session, lease))
