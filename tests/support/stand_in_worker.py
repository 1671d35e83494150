"""A thread that ends queued jobs as a worker would, with metrics, an evaluation and a student."""

import hashlib
import threading
from pathlib import Path
from typing import Any, Self

from frs import events
from store.artifacts.storage import Artifacts
from store.db.database import Database
from store.jobs import lifecycle, recording
from store.jobs.lease import Lease
from store.states import EndReason, JobStatus

STUDENT = b"weights of a student"


class StandInWorker:
    """Ends each queued job whose references are ready, until it is left."""

    def __init__(self, database: Database, artifacts: Artifacts, folder: Path) -> None:
        self._database, self._artifacts, self._folder = database, artifacts, folder
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._left.wait(0.02):
            lease: Lease | None = self._do(lifecycle.claim, "worker", 60.0)
            if lease is not None:
                self._end(lease)

    def _end(self, lease: Lease) -> None:
        metrics: Any = {"metrics": {"bbox_mAP": 0.5}, "per_class": {}, "images": 2, "detections": 2}
        self._do(
            recording.record,
            lease,
            [
                events.Metrics(step=1, epoch=1, values={"train/loss": 0.75}),
                events.Evaluation(role="student", step=1, epoch=1, last=True, **metrics),
            ],
        )
        self._store_student(lease)
        self._do(lifecycle.finish, lease, JobStatus.SUCCEEDED, EndReason.COMPLETED)

    def _store_student(self, lease: Lease) -> None:
        sha256 = hashlib.sha256(STUDENT).hexdigest()
        path = self._folder / lease.job_id
        path.write_bytes(STUDENT)
        student = events.Checkpoint(
            kind="student", path="a.pth", sha256=sha256, bytes=len(STUDENT), step=1, epoch=1, labels=("best", "last")
        )
        key = recording.checkpoint_key(lease, student)
        self._artifacts.put(path, key, sha256)
        self._do(recording.record_checkpoint, lease, student, key)

    def _do(self, function: Any, *arguments: Any) -> Any:
        with self._database.write() as session:
            result = function(session, *arguments)
            session.commit()
        return result
