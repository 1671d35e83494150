"""The tables. Times are seconds since 1970 UTC on the database's clock; enums are text, never native types."""

import enum
from functools import partial
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Double,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from store.db.database import now
from store.db.ids import new_id
from store.states import (
    AttemptEnd,
    DatasetStatus,
    DetectorStatus,
    EndReason,
    JobStatus,
    RequestKind,
    RequestStatus,
    WaitingReason,
)

Document = dict[str, Any]
_OF_A_JOB = partial(ForeignKey, "jobs.id", ondelete="CASCADE")
DEFAULT_OWNER = "admin"
"""Of the first key, and of what was there before keys had owners."""


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        float: Double,
        Document: JSON(none_as_null=True),
        list[str]: JSON(none_as_null=True),
        list[Document]: JSON(none_as_null=True),
        enum.Enum: Enum(
            enum.Enum,
            native_enum=False,
            length=32,
            values_callable=lambda members: [member.value for member in members],
        ),
    }


class Job(Base):
    """What a user asked for, and how far it is. Changed only by `store.jobs.lifecycle` and `store.jobs.recording`."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "job"))
    name: Mapped[str | None]
    kind: Mapped[str]
    spec: Mapped[Document]
    """A `frs.spec.JobSpec`, every default spelt out; never changed."""
    owner: Mapped[str] = mapped_column(default=DEFAULT_OWNER, server_default=DEFAULT_OWNER)
    """That of the key it was posted with: who may see it."""
    tags: Mapped[list[str]] = mapped_column(default=list, server_default="[]")
    """The spec's at first, then what its owner made of them."""
    devices: Mapped[int | None]
    """GPUs the spec asks for; null: one where there are any."""
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    """The job this one is a baseline, a sibling of another seed or the comparison of."""
    teacher_job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    """The job whose student this one needs; it waits until that has succeeded."""
    priority: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float] = mapped_column(default=now())
    started_at: Mapped[float | None]
    """Start of the first attempt."""
    finished_at: Mapped[float | None]

    status: Mapped[JobStatus] = mapped_column(default=JobStatus.QUEUED)
    status_reason_code: Mapped[WaitingReason | None]
    status_reason_message: Mapped[str | None]
    status_reason_since: Mapped[float | None]
    end_reason: Mapped[EndReason | None]
    error: Mapped[Document | None]
    """A `frs.events.ErrorInfo`."""
    cancel_requested_at: Mapped[float | None]
    pause_requested_at: Mapped[float | None]
    stop_requested_at: Mapped[float | None]
    not_before: Mapped[float | None]
    """No worker takes it earlier."""

    attempt: Mapped[int] = mapped_column(default=0)
    """Number of the newest attempt: the fencing token that every write of a running job carries."""
    failures_reset_at_attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    """Attempts up to this number no longer count towards `poison`: somebody resumed or retried the job since."""
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[float | None]

    phase: Mapped[str | None]
    progress: Mapped[Document | None]
    facts: Mapped[Document] = mapped_column(default=dict)
    last_event: Mapped[int] = mapped_column(default=0)
    """Number of the newest event or batch of metrics."""

    key_id: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"))
    """Who asked for it."""
    idempotency_key: Mapped[str | None]
    idempotency_digest: Mapped[str | None]

    __table_args__ = (
        UniqueConstraint("key_id", "idempotency_key"),
        Index("uq_jobs_owner_idempotency_key", "owner", "idempotency_key", unique=True),
        Index(None, "status", "priority", "created_at"),
        Index(None, "created_at", "id"),
        Index(None, "owner", "created_at", "id"),
        Index(None, "owner", "status"),
        Index(None, "dataset_id"),
    )


class Attempt(Base):
    """One execution of a job under one lease."""

    __tablename__ = "attempts"
    job_id: Mapped[str] = mapped_column(_OF_A_JOB(), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str]
    started_at: Mapped[float] = mapped_column(default=now())
    ended_at: Mapped[float | None]
    end: Mapped[AttemptEnd | None]
    start_step: Mapped[int | None]
    """Step it went on from; null until the trainer said so."""


class Event(Base):
    """The history of a job, numbered without gaps together with its batches of metrics."""

    __tablename__ = "events"
    job_id: Mapped[str] = mapped_column(_OF_A_JOB(), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    type: Mapped[str]
    """`status`, `cancel_requested`, or the type of a `frs.events` event."""
    at: Mapped[float] = mapped_column(default=now())
    data: Mapped[Document]

    __table_args__ = ({"sqlite_with_rowid": False},)


class Metric(Base):
    __tablename__ = "metrics"
    job_id: Mapped[str] = mapped_column(_OF_A_JOB(), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int]
    value: Mapped[float | None]
    """Null: an evaluation that had nothing of that size to find."""
    at: Mapped[float]
    attempt: Mapped[int]
    seq: Mapped[int]
    """Number of the batch it came in: values written after number n have a larger one."""

    __table_args__ = (
        CheckConstraint("abs(value) <= 1e308", name="finite"),
        Index(None, "job_id", "seq"),
        {"sqlite_with_rowid": False},
    )


class Evaluation(Base):
    """COCO numbers of one detector at one step; `last` marks the ones that count."""

    __tablename__ = "evaluations"
    job_id: Mapped[str] = mapped_column(_OF_A_JOB(), primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last: Mapped[bool] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int]
    attempt: Mapped[int]
    metrics: Mapped[Document]
    per_class: Mapped[Document]
    images: Mapped[int]
    detections: Mapped[int]
    at: Mapped[float]


class Checkpoint(Base):
    """A file that is in the artifacts, whole, before its row is."""

    __tablename__ = "checkpoints"
    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "ckpt"))
    job_id: Mapped[str] = mapped_column(_OF_A_JOB())
    attempt: Mapped[int]
    kind: Mapped[Literal["training", "student"]] = mapped_column(
        Enum("training", "student", native_enum=False, length=32)
    )
    labels: Mapped[list[str]]
    """`best`, `last`; each held by one student of the job."""
    step: Mapped[int]
    epoch: Mapped[int]
    key: Mapped[str]
    sha256: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[Document]
    created_at: Mapped[float] = mapped_column(default=now())

    __table_args__ = (UniqueConstraint("job_id", "key"),)


class Artifact(Base):
    """A deliverable that is no checkpoint."""

    __tablename__ = "artifacts"
    job_id: Mapped[str] = mapped_column(_OF_A_JOB(), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str]
    sha256: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float] = mapped_column(default=now())


class Dataset(Base):
    """A COCO data set; paths are relative to the data sets' root, or to the folder an upload was unpacked in."""

    __tablename__ = "datasets"
    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "ds"))
    name: Mapped[str]
    owner: Mapped[str] = mapped_column(default=DEFAULT_OWNER, server_default=DEFAULT_OWNER)
    upload_key: Mapped[str | None]
    """Artifact of the archive it was uploaded as; null: it lies below the data sets' root."""
    train_images: Mapped[str]
    train_annotations: Mapped[str]
    val_images: Mapped[str]
    val_annotations: Mapped[str]
    hashes: Mapped[Document | None]
    """SHA-256 of each half's annotation file as it was checked; null for an upload, and for what is older than this."""
    status: Mapped[DatasetStatus] = mapped_column(default=DatasetStatus.CHECKING)
    check_result: Mapped[Document | None]
    classes: Mapped[list[str] | None]
    created_at: Mapped[float] = mapped_column(default=now())

    __table_args__ = (UniqueConstraint("owner", "name"),)


class Detector(Base):
    """Architecture and weights: a file of the models folder, or what a job left in the artifacts."""

    __tablename__ = "detectors"
    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "det"))
    name: Mapped[str]
    owner: Mapped[str] = mapped_column(default=DEFAULT_OWNER, server_default=DEFAULT_OWNER)
    status: Mapped[DetectorStatus] = mapped_column(
        default=DetectorStatus.READY, server_default=DetectorStatus.READY.value
    )
    """An upload is `importing` until a worker has read it in its jail."""
    error: Mapped[Document | None]
    """Why an upload was refused: a `frs.events.ErrorInfo`."""
    description: Mapped[Document]
    """A `frs.spec.StockDetector` or `DescribedDetector`."""
    weights_file: Mapped[str | None]
    """Relative to the models folder."""
    weights_key: Mapped[str | None]
    """Key of an artifact."""
    sha256: Mapped[str]
    classes: Mapped[list[str] | None]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    """The job that trained it."""
    created_at: Mapped[float] = mapped_column(default=now())

    __table_args__ = (
        CheckConstraint("(weights_file IS NULL) <> (weights_key IS NULL)", name="one_source"),
        UniqueConstraint("owner", "name"),
    )


class ApiKey(Base):
    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "key"))
    name: Mapped[str]
    prefix: Mapped[str]
    """The first characters, to tell keys apart by; too few to guess the rest from."""
    sha256: Mapped[str] = mapped_column(unique=True)
    owner: Mapped[str] = mapped_column(default=DEFAULT_OWNER, server_default=DEFAULT_OWNER)
    """Keys of one owner see the same jobs, data sets and detectors."""
    scopes: Mapped[list[str]] = mapped_column(default=lambda: ["admin"], server_default='["admin"]')
    """Of `store.db.api_keys.Scope`."""
    max_active_jobs: Mapped[int | None]
    """Jobs of its owner that may wait or run at a time; null: as the settings say."""
    requests_per_minute: Mapped[int | None]
    created_at: Mapped[float] = mapped_column(default=now())
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class Worker(Base):
    """A worker process, as it last said itself."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(primary_key=True)
    """The owner of its leases."""
    host: Mapped[str]
    version: Mapped[str]
    concurrency: Mapped[int]
    gpus: Mapped[list[Document]] = mapped_column(default=list)
    """`{index, name, memory_total, memory_used, utilization}` each; bytes and percent, null where not known."""
    draining: Mapped[bool] = mapped_column(default=False)
    """It takes no more jobs and gives back what it has."""
    missing: Mapped[list[Document] | None]
    """What jobs in the queue need and it has not: `{key, owner, message}` each, as `store.scheduling.requirements.Requirement`."""
    started_at: Mapped[float] = mapped_column(default=now())
    seen_at: Mapped[float] = mapped_column(default=now())


class WorkerRequest(Base):
    """Work of seconds that needs a worker and is no job: a plan's probe, the import of an uploaded detector."""

    __tablename__ = "worker_requests"
    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[RequestKind]
    owner: Mapped[str]
    request: Mapped[Document]
    devices: Mapped[int | None]
    """As a job's."""
    status: Mapped[RequestStatus] = mapped_column(default=RequestStatus.QUEUED)
    attempt: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[float | None]
    result: Mapped[Document | None]
    error: Mapped[Document | None]
    """A `frs.events.ErrorInfo`."""
    created_at: Mapped[float] = mapped_column(default=now())
    finished_at: Mapped[float | None]

    __table_args__ = (Index(None, "status", "created_at"),)
