"""The tables.

Times are seconds since 1970 UTC on the database's clock. Enums are stored as text, not as native enum types.
"""

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
from store.db.idempotency import CreatedOnce
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
"""A JSON object."""
_JOB_ID = partial(ForeignKey, "jobs.id", ondelete="CASCADE")
DEFAULT_OWNER = "admin"
"""Owner of the first key, and of rows that were created before keys had owners."""


class Base(DeclarativeBase):
    """Base class of all tables: names of constraints, column types."""

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


class Job(CreatedOnce, Base):
    """A job as submitted, and its state. Only `store.jobs` changes it."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "job"))
    name: Mapped[str | None]
    """Display name from the spec, or as changed since."""
    kind: Mapped[str]
    """`kind` of the spec."""
    spec: Mapped[Document]
    """A `frs.spec.JobSpec` with all defaults filled in; never changed."""
    owner: Mapped[str] = mapped_column(default=DEFAULT_OWNER, server_default=DEFAULT_OWNER)
    """Owner of the API key that submitted the job; determines who can see it."""
    tags: Mapped[list[str]] = mapped_column(default=list, server_default="[]")
    """Tags from the spec, or as changed since."""
    devices: Mapped[int | None]
    """Number of GPUs requested, on each node; null: one if the worker has any."""
    nodes: Mapped[int] = mapped_column(default=1, server_default="1")
    """Number of hosts the job runs on; only a worker for as many claims it."""
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    """The data set to train or evaluate on."""
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    """For a baseline, a seed variant or a comparison: the job it was created with."""
    teacher_job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    """The job whose student this job uses, as teacher, to start from, to evaluate or to export; this job waits until it
    has succeeded. Of two such jobs, the one that had not succeeded when this job was submitted."""
    priority: Mapped[int] = mapped_column(default=0)
    """Jobs of higher priority are claimed first."""
    created_at: Mapped[float] = mapped_column(default=now())
    queued_at: Mapped[float | None]
    """When the job entered the queue last; null: at `created_at`."""
    started_at: Mapped[float | None]
    """Start of the first attempt."""
    finished_at: Mapped[float | None]
    """When the job ended."""

    status: Mapped[JobStatus] = mapped_column(default=JobStatus.QUEUED)
    status_reason_code: Mapped[WaitingReason | None]
    """Why the job waits, if it was returned to the queue for that reason; otherwise derived on request."""
    status_reason_message: Mapped[str | None]
    """Message for `status_reason_code`."""
    status_reason_since: Mapped[float | None]
    """When the job began to wait for that reason."""
    end_reason: Mapped[EndReason | None]
    """Why the job ended; null until then."""
    error: Mapped[Document | None]
    """A `frs.events.ErrorInfo`, if the job failed."""
    cancel_requested_at: Mapped[float | None]
    """When `cancel` was accepted; null: not requested."""
    pause_requested_at: Mapped[float | None]
    """When `pause` was accepted; null: not requested."""
    stop_requested_at: Mapped[float | None]
    """When `stop` was accepted; null: not requested."""
    not_before: Mapped[float | None]
    """No worker claims the job before this time; null: no delay."""

    attempt: Mapped[int] = mapped_column(default=0)
    """Number of the newest attempt: the fencing token checked by every write of a running job."""
    failures_reset_at_attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    """Attempts up to this number no longer count towards `poison`, because the job was resumed or retried since."""
    lease_owner: Mapped[str | None]
    """Id of the worker that runs the job; null unless it is running."""
    lease_expires_at: Mapped[float | None]
    """When the lease expires unless it is renewed; null unless the job is running."""

    phase: Mapped[str | None]
    """Newest phase of the trainer; null unless the job is running."""
    progress: Mapped[Document | None]
    """Newest `frs.events.Progress`."""
    facts: Mapped[Document] = mapped_column(default=dict)
    """Merged values of all `frs.events.Facts`."""
    last_event: Mapped[int] = mapped_column(default=0)
    """Number of the newest event or batch of metrics."""

    key_id: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"))
    """The API key that submitted the job."""

    __table_args__ = (
        UniqueConstraint("key_id", "idempotency_key"),
        Index("uq_jobs_owner_idempotency_key", "owner", "idempotency_key", unique=True),
        Index(None, "status", "priority", "owner", "created_at", "id"),
        Index(None, "created_at", "id"),
        Index(None, "owner", "created_at", "id"),
        Index(None, "owner", "status"),
        Index(None, "dataset_id"),
    )

    @property
    def title(self) -> str:
        """Name of the job in messages: its id if it has no name."""
        return self.name or self.id


class Attempt(Base):
    """One execution of a job under one lease."""

    __tablename__ = "attempts"
    job_id: Mapped[str] = mapped_column(_JOB_ID(), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Counts from 1 within the job."""
    owner: Mapped[str]
    """Id of the worker."""
    started_at: Mapped[float] = mapped_column(default=now())
    ended_at: Mapped[float | None]
    end: Mapped[AttemptEnd | None]
    """How the attempt ended; null while it runs."""
    start_step: Mapped[int | None]
    """Step that the attempt continued from; null until the trainer has reported it."""


class Event(Base):
    """The history of a job. Events and batches of metrics share one numbering without gaps."""

    __tablename__ = "events"
    job_id: Mapped[str] = mapped_column(_JOB_ID(), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Number within the job, from 1."""
    attempt: Mapped[int]
    """Attempt that wrote the event; 0 before the first one."""
    type: Mapped[str]
    """`status`, `changed`, `cancel_requested` and the like, or the type of a `frs.events` event."""
    at: Mapped[float] = mapped_column(default=now())
    data: Mapped[Document]
    """Content of the event; its keys depend on `type`."""

    __table_args__ = ({"sqlite_with_rowid": False},)


class Metric(Base):
    """The value of one metric at one training step."""

    __tablename__ = "metrics"
    job_id: Mapped[str] = mapped_column(_JOB_ID(), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    """Name of the metric, such as `train/loss`."""
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int]
    value: Mapped[float | None]
    """Null: the evaluation had no objects of that size."""
    at: Mapped[float]
    attempt: Mapped[int]
    seq: Mapped[int]
    """Number of the batch; values written after event n have a larger one."""

    __table_args__ = (
        CheckConstraint("abs(value) <= 1e308", name="finite"),
        Index(None, "job_id", "seq"),
        {"sqlite_with_rowid": False},
    )


class Evaluation(Base):
    """COCO metrics of one detector at one step."""

    __tablename__ = "evaluations"
    job_id: Mapped[str] = mapped_column(_JOB_ID(), primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)
    """Evaluated detector, such as `student` or `teacher`."""
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last: Mapped[bool] = mapped_column(primary_key=True, autoincrement=False)
    """Whether this is the final evaluation, whose numbers are the result."""
    epoch: Mapped[int]
    attempt: Mapped[int]
    metrics: Mapped[Document]
    """Metric values by name."""
    per_class: Mapped[Document]
    """AP by class name."""
    images: Mapped[int]
    """Number of images evaluated."""
    detections: Mapped[int]
    """Number of detections scored."""
    at: Mapped[float]


class Checkpoint(Base):
    """A checkpoint. Its file is completely stored in the artifacts before the row is inserted."""

    __tablename__ = "checkpoints"
    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "ckpt"))
    job_id: Mapped[str] = mapped_column(_JOB_ID())
    attempt: Mapped[int]
    """Attempt that wrote it."""
    kind: Mapped[Literal["training", "student"]] = mapped_column(
        Enum("training", "student", native_enum=False, length=32)
    )
    """`training`: state to resume from; `student`: weights."""
    labels: Mapped[list[str]]
    """`best`, `last`; each belongs to one student checkpoint of the job."""
    step: Mapped[int]
    epoch: Mapped[int]
    key: Mapped[str]
    """Artifact key of the file."""
    sha256: Mapped[str]
    """SHA-256 of the file, lower-case hex."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    """Size of the file."""
    metrics: Mapped[Document]
    """Validation metrics at that step."""
    created_at: Mapped[float] = mapped_column(default=now())

    __table_args__ = (UniqueConstraint("job_id", "key"),)


class Artifact(Base):
    """A deliverable of a job other than a checkpoint."""

    __tablename__ = "artifacts"
    job_id: Mapped[str] = mapped_column(_JOB_ID(), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    """Name of the deliverable, unique within the job."""
    key: Mapped[str]
    """Artifact key of the file."""
    sha256: Mapped[str]
    """SHA-256 of the file, lower-case hex."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    """Size of the file."""
    created_at: Mapped[float] = mapped_column(default=now())


class Dataset(Base):
    """A COCO data set. Paths are relative to `FRS_DATASETS_ROOT`, or to the folder that an upload was unpacked into."""

    __tablename__ = "datasets"
    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "ds"))
    name: Mapped[str]
    """Unique within the owner."""
    owner: Mapped[str] = mapped_column(default=DEFAULT_OWNER, server_default=DEFAULT_OWNER)
    upload_key: Mapped[str | None]
    """Artifact key of the uploaded archive; null for a data set below `FRS_DATASETS_ROOT`."""
    train_images: Mapped[str]
    """Folder of the training images."""
    train_annotations: Mapped[str]
    """COCO annotation file of the training split."""
    val_images: Mapped[str]
    """Folder of the validation images."""
    val_annotations: Mapped[str]
    """COCO annotation file of the validation split."""
    hashes: Mapped[Document | None]
    """SHA-256 of the annotation file of each split (`train`, `val`) at the time of the check; null for an upload and
    for rows older than this column."""
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Size of an upload: the archive and its unpacked files; null for a data set below `FRS_DATASETS_ROOT`."""
    status: Mapped[DatasetStatus] = mapped_column(default=DatasetStatus.CHECKING)
    check_result: Mapped[Document | None]
    """Result of the newest check."""
    classes: Mapped[list[str] | None]
    """Class names in label order."""
    created_at: Mapped[float] = mapped_column(default=now())

    __table_args__ = (UniqueConstraint("owner", "name"),)


class Detector(Base):
    """Architecture and weights: a file in the models folder, or a file in the artifacts."""

    __tablename__ = "detectors"
    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "det"))
    name: Mapped[str]
    """Unique within the owner."""
    owner: Mapped[str] = mapped_column(default=DEFAULT_OWNER, server_default=DEFAULT_OWNER)
    status: Mapped[DetectorStatus] = mapped_column(
        default=DetectorStatus.READY, server_default=DetectorStatus.READY.value
    )
    """An uploaded detector is `importing` until a worker has read it in isolation."""
    error: Mapped[Document | None]
    """Why an upload was refused, or why its import has to wait: a `frs.events.ErrorInfo`."""
    description: Mapped[Document]
    """A `frs.detector_spec.ConfigDetector` or `DescribedDetector`."""
    weights_file: Mapped[str | None]
    """Path of the weights relative to the models folder."""
    weights_key: Mapped[str | None]
    """Artifact key of the weights."""
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Size of the file `weights_key`; null for a file in the models folder."""
    sha256: Mapped[str]
    """SHA-256 of the weights file, lower-case hex."""
    classes: Mapped[list[str] | None]
    """Class names in label order; null if unknown."""
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    """The job that trained the detector."""
    created_at: Mapped[float] = mapped_column(default=now())

    __table_args__ = (
        CheckConstraint("(weights_file IS NULL) <> (weights_key IS NULL)", name="one_source"),
        UniqueConstraint("owner", "name"),
    )


class ApiKey(CreatedOnce, Base):
    """An API key. The token itself is not stored."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "key"))
    name: Mapped[str]
    prefix: Mapped[str]
    """First characters of the token, which identify the key in lists; too few to guess the token."""
    sha256: Mapped[str] = mapped_column(unique=True)
    """SHA-256 of the token, lower-case hex."""
    owner: Mapped[str] = mapped_column(default=DEFAULT_OWNER, server_default=DEFAULT_OWNER)
    """Keys of one owner share jobs, data sets and detectors."""
    scopes: Mapped[list[str]] = mapped_column(default=lambda: ["admin"], server_default='["admin"]')
    """Values of `store.states.Scope`."""
    max_active_jobs: Mapped[int | None]
    """Maximum number of jobs of the owner that have not ended; null: `FRS_MAX_ACTIVE_JOBS`."""
    requests_per_minute: Mapped[int | None]
    """Maximum number of requests per minute of this key; null: `FRS_REQUESTS_PER_MINUTE`."""
    max_disk_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Maximum size of the owner's stored files; null: `FRS_MAX_DISK_BYTES`."""
    created_at: Mapped[float] = mapped_column(default=now())
    expires_at: Mapped[float | None]
    """The key is invalid from this time on; null: never."""
    revoked_at: Mapped[float | None]
    """When the key was revoked; null: not revoked."""
    replaced_by: Mapped[str | None]
    """Id of the key that replaces this one, by its last rotation; `expires_at` then includes the grace period."""
    user_digest: Mapped[str | None] = mapped_column(index=True)
    """SHA-256 of the provider and the subject of a signed-in user, with a prefix; null: a token belongs to the key."""

    __table_args__ = (Index("uq_api_keys_owner_idempotency_key", "owner", "idempotency_key", unique=True),)


class Owner(Base):
    """An owner whose jobs a worker has claimed; owners take turns within a priority."""

    __tablename__ = "owners"
    owner: Mapped[str] = mapped_column(primary_key=True)
    served_at: Mapped[float | None]
    """When a worker claimed a job of the owner last."""


class AuditEntry(Base):
    """A change that a user requested. Rows are only inserted; they outlive the key and the object they name."""

    __tablename__ = "audit"
    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "audit"))
    at: Mapped[float] = mapped_column(default=now())
    action: Mapped[str]
    """What was done, such as `job.cancel`."""
    target: Mapped[str | None]
    """Id of the changed object."""
    owner: Mapped[str | None]
    """Owner of the API key."""
    key_id: Mapped[str | None]
    """The API key; not a foreign key, so that the row outlives it."""
    address: Mapped[str | None]
    """Network address of the client."""
    request_id: Mapped[str | None]
    """The request's `X-Request-Id`."""
    details: Mapped[Document] = mapped_column(default=dict)
    """Arguments of the action; never a secret."""

    __table_args__ = (Index(None, "at", "id"),)


class Worker(Base):
    """A worker process, as it registered itself last."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(primary_key=True)
    """Also the `lease_owner` of its jobs."""
    name: Mapped[str | None]
    """Name of the worker, which survives its restarts; null for a worker of an earlier version."""
    host: Mapped[str]
    """Host name."""
    version: Mapped[str]
    """Version of the service."""
    concurrency: Mapped[int]
    """Number of jobs it runs at a time."""
    gpus: Mapped[list[Document]] = mapped_column(default=list)
    """One `{index, name, memory_total, memory_used, utilization}` per GPU, in bytes and percent; null where unknown."""
    nodes: Mapped[int] = mapped_column(default=1, server_default="1")
    """Number of hosts on which it runs a job; it claims only jobs of that number."""
    draining: Mapped[bool] = mapped_column(default=False)
    """Whether it claims no more jobs and returns the running ones to the queue."""
    missing: Mapped[list[Document] | None]
    """Requirements of queued jobs, and ImageNet weights that a job may require, that it does not meet: `{key, owner,
    message}` of each `store.scheduling.requirements.Requirement`."""
    started_at: Mapped[float] = mapped_column(default=now())
    seen_at: Mapped[float] = mapped_column(default=now())
    """Time of the newest registration."""


class WorkerRequest(Base):
    """A task of seconds that needs a worker but is not a job: a plan's probe, or the import of an uploaded detector."""

    __tablename__ = "worker_requests"
    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[RequestKind]
    owner: Mapped[str]
    """Owner of the API key that requested it."""
    request: Mapped[Document]
    """Arguments of the task; the keys depend on `kind`."""
    devices: Mapped[int | None]
    """Number of GPUs requested, as in `Job.devices`."""
    status: Mapped[RequestStatus] = mapped_column(default=RequestStatus.QUEUED)
    attempt: Mapped[int] = mapped_column(default=0)
    """Number of claims; a claim that was returned cleanly does not count."""
    lease_owner: Mapped[str | None]
    """Token of the current claim; null unless it is claimed."""
    lease_expires_at: Mapped[float | None]
    """When the claim expires unless it is renewed."""
    not_before: Mapped[float | None]
    """As in `Job`, like the next three."""
    status_reason_code: Mapped[WaitingReason | None]
    status_reason_message: Mapped[str | None]
    status_reason_since: Mapped[float | None]
    result: Mapped[Document | None]
    """Result of the task; null until it has succeeded."""
    error: Mapped[Document | None]
    """A `frs.events.ErrorInfo`, if the task failed."""
    created_at: Mapped[float] = mapped_column(default=now())
    finished_at: Mapped[float | None]

    __table_args__ = (Index(None, "status", "created_at"),)
