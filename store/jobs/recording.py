"""Records written by a running attempt: events, metrics, checkpoints, artifacts.

Every write begins with `lock_attempt`, which raises LeaseLost, so an attempt that lost its lease changes nothing. Each
function takes a session of `Database.write` and leaves the commit to its caller.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session, aliased

from frs import events
from frs.events import Evaluation, Facts, Log, Metrics, Phase, Progress, Rewound
from store.db import tables
from store.db.database import insert, time_of
from store.db.tables import Attempt, Document, Event, Job, Metric
from store.jobs.lease import Lease, lock_attempt
from store.jobs.transitions import add_event, next_event_number

PersistedEvent = Phase | Rewound | Progress | Metrics | Evaluation | Facts | Log
"""Events without a file; for the others see `record_checkpoint` and `record_artifact`. Of Progress and Facts only the
newest state is stored, without a number."""


def record(session: Session, lease: Lease, batch: Sequence[PersistedEvent]) -> None:
    """Write a batch of events in order. Metrics are rows of their own table, numbered together with the events."""
    writer = _EventWriter(session, lock_attempt(session, lease))
    for event in batch:
        writer.write(event)
    writer.flush()


def record_checkpoint(session: Session, lease: Lease, checkpoint: events.Checkpoint, key: str) -> str:
    """Record a checkpoint whose file is already stored under `key`; return its id.

    The same file recorded again keeps its id. A label moves to the student that was recorded with it last.
    """
    job = lock_attempt(session, lease)
    _take_labels(session, job.id, checkpoint)
    same_file = select(tables.Checkpoint).where(tables.Checkpoint.job_id == job.id, tables.Checkpoint.key == key)
    row = session.scalar(same_file)
    if row is None:
        row = tables.Checkpoint(job_id=job.id, attempt=job.attempt, key=key, labels=[], **_file_facts(checkpoint))
        session.add(row)
    row.labels = sorted({*row.labels, *checkpoint.labels})
    session.flush()
    add_event(session, job, "checkpoint", {"id": row.id, "labels": row.labels, **_file_facts(checkpoint)})
    return row.id


def record_artifact(session: Session, lease: Lease, artifact: events.Artifact, key: str) -> list[str]:
    """Record a deliverable whose file is already stored under `key`; it replaces an earlier one of that name.

    Returns the keys of the replaced files, which the caller deletes after the commit.
    """
    job = lock_attempt(session, lease)
    superseded = _superseded(session, job.id, artifact.name, key)
    row = {"job_id": job.id, "name": artifact.name, "key": key, "sha256": artifact.sha256, "bytes": artifact.bytes}
    _upsert(session, tables.Artifact, [row])
    add_event(session, job, "artifact", {name: row[name] for name in ("name", "sha256", "bytes")})
    return superseded


def checkpoint_key(lease: Lease, checkpoint: events.Checkpoint) -> str:
    """Return the artifact key of a checkpoint's file.

    The key contains the SHA-256, so that no row refers to a partly replaced file, and the attempt, so that a late
    deletion by one attempt does not remove a file that a later attempt has written again.
    """
    name = f"{checkpoint.kind}_{checkpoint.step:08d}_{checkpoint.sha256[:12]}"
    return f"{lease.job_id}/checkpoints/{name}_{lease.attempt}{PurePosixPath(checkpoint.path).suffix}"


def artifact_key(lease: Lease, artifact: events.Artifact) -> str:
    """Return the artifact key of a deliverable's file; see `checkpoint_key`."""
    return f"{lease.job_id}/artifacts/{artifact.sha256[:12]}_{lease.attempt}{PurePosixPath(artifact.path).suffix}"


def keys_in_use(session: Session, job_id: str) -> set[str]:
    """Return the artifact keys of the job's checkpoints and artifacts, and of detectors published from it."""
    published = tables.Detector.weights_key
    queries = (
        select(tables.Checkpoint.key).where(tables.Checkpoint.job_id == job_id),
        select(tables.Artifact.key).where(tables.Artifact.job_id == job_id),
        select(published).where(published.startswith(f"{job_id}/", autoescape=True)),
    )
    return {key for query in queries for key in session.scalars(query) if key}


class _EventWriter:
    """Numbers the events of one batch and writes them; metrics are collected and written in one statement."""

    def __init__(self, session: Session, job: Job) -> None:
        self.session = session
        self.job = job
        self.at = time_of(session)
        self.metrics: list[Document] = []

    def write(self, event: PersistedEvent) -> None:
        match event:
            case Progress():
                self.job.progress = _data(event)
            case Facts():
                self.job.facts = {**self.job.facts, **_data(event)["values"]}
            case Metrics():
                self._metrics(event)
            case Evaluation():
                self._evaluation(event)
            case Rewound():
                self._rewind(event.to_step)
                self._event(event.type, _data(event))
            case Phase():
                self.job.phase = event.phase
                if self.job.progress:
                    self.job.progress = {**self.job.progress, "phase_fraction": None}
                self._event(event.type, _data(event))
            case Log():
                self._event(event.type, _data(event))

    def flush(self) -> None:
        if self.metrics:
            _upsert(self.session, Metric, self.metrics)
            self.metrics = []
        self.session.flush()

    def _metrics(self, event: Metrics) -> None:
        common = {"job_id": self.job.id, "step": event.step, "epoch": event.epoch, **self._stamp()}
        self.metrics += [{**common, "key": key, "value": value} for key, value in event.values.items()]

    def _evaluation(self, event: Evaluation) -> None:
        data = _data(event)
        _upsert(
            self.session,
            tables.Evaluation,
            [{"job_id": self.job.id, **data, "at": self.at, "attempt": self.job.attempt}],
        )
        self._event(event.type, {name: value for name, value in data.items() if name != "per_class"})

    def _rewind(self, step: int) -> None:
        self.flush()
        job_id, attempt = self.job.id, self.job.attempt
        evaluation = tables.Evaluation
        self.session.execute(delete(Metric).where(Metric.job_id == job_id, Metric.step > step))
        self.session.execute(
            delete(evaluation).where(evaluation.job_id == job_id, evaluation.role == "student", evaluation.step > step)
        )
        this_attempt = (Attempt.job_id == job_id, Attempt.number == attempt)
        self.session.execute(update(Attempt).where(*this_attempt).values(start_step=step))

    def _event(self, type: str, data: Document) -> None:
        self.session.add(Event(job_id=self.job.id, type=type, data=data, **self._stamp()))

    def _stamp(self) -> dict[str, Any]:
        """Return the columns of one numbered event or batch of metrics."""
        return {"at": self.at, "attempt": self.job.attempt, "seq": next_event_number(self.job)}


def _data(event: PersistedEvent) -> Document:
    return event.model_dump(mode="json", exclude={"type", "time"})


def _file_facts(checkpoint: events.Checkpoint) -> Document:
    return checkpoint.model_dump(mode="json", exclude={"type", "time", "path", "labels"})


def _take_labels(session: Session, job_id: str, checkpoint: events.Checkpoint) -> None:
    students = select(tables.Checkpoint).where(tables.Checkpoint.job_id == job_id, tables.Checkpoint.kind == "student")
    for student in session.scalars(students):
        student.labels = [label for label in student.labels if label not in checkpoint.labels]


def _superseded(session: Session, job_id: str, name: str, key: str) -> list[str]:
    """Return the keys under that name other than `key`, except those that another name shares."""
    row, other = tables.Artifact, aliased(tables.Artifact)
    shared = exists().where(other.job_id == job_id, other.key == row.key, other.name != name)
    return list(session.scalars(select(row.key).where(row.job_id == job_id, row.name == name, row.key != key, ~shared)))


def _upsert(session: Session, table: type[tables.Base], rows: list[Document]) -> None:
    """Insert rows, or replace those with the same primary key."""
    columns = table.__table__.columns
    statement = insert(session, table.__table__)
    statement = statement.on_conflict_do_update(
        index_elements=[column.name for column in columns if column.primary_key],
        set_={name: statement.excluded[name] for name in rows[0] if not columns[name].primary_key},
    )
    session.execute(statement, rows)
