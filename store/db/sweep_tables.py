"""The tables of sweeps."""

from functools import partial

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from store.db.database import now
from store.db.idempotency import CreatedOnce
from store.db.ids import new_id
from store.db.tables import Base, Document
from store.states import JobStatus, SearchEnd, SweepStatus


class Sweep(CreatedOnce, Base):
    """A search over the fields of a job spec, and its state. Only `store.sweeps` changes it."""

    __tablename__ = "sweeps"
    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "sweep"))
    name: Mapped[str | None]
    owner: Mapped[str]
    """Owner of the API key that submitted the sweep; also the owner of its jobs."""
    key_id: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"))
    """The API key that submitted or last resumed the sweep; its jobs are posted with it."""
    spec: Mapped[Document]
    """A `store.sweeps.definition.SweepSpec` with all defaults filled in; never changed."""
    dataset_id: Mapped[str]
    """The data set of its jobs; not a foreign key, so that an old sweep does not keep it."""
    status: Mapped[SweepStatus] = mapped_column(default=SweepStatus.SEARCHING)
    search_end: Mapped[SearchEnd | None]
    """What ended the search; null while it lasts."""
    best_setting: Mapped[int | None]
    """Number of the chosen setting; null until the search has ended."""
    confirm_job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    """The job that runs the chosen setting on new seeds."""
    result: Mapped[Document | None]
    """A `store.sweeps.confirmation.Result`; null until the confirming job has succeeded."""
    error: Mapped[Document | None]
    """A `frs.events.ErrorInfo` with a code of `SweepFailure`, if the sweep has failed."""
    failures_before_resume: Mapped[int] = mapped_column(default=0)
    """Trials that had failed when the sweep was last resumed; they no longer count towards `too_many_failures`."""
    created_at: Mapped[float] = mapped_column(default=now())
    finished_at: Mapped[float | None]
    """When the sweep succeeded or failed."""

    __table_args__ = (
        Index("uq_sweeps_owner_idempotency_key", "owner", "idempotency_key", unique=True),
        Index(None, "owner", "created_at", "id"),
        Index(None, "status"),
    )


class Trial(Base):
    """One job of a sweep's search. The row keeps the result if the job is deleted."""

    __tablename__ = "sweep_trials"
    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Counts from 1 within the sweep."""
    setting: Mapped[int]
    """Number of the setting, from 0: the values of the searched fields."""
    rung: Mapped[int]
    """Number of the rung, from 0: the length of the schedule. 0 unless the strategy is `asha`."""
    seed: Mapped[int] = mapped_column(BigInteger)
    """`schedule.seed` of the job."""
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), unique=True)
    """The job; null once it is deleted."""
    status: Mapped[JobStatus] = mapped_column(default=JobStatus.QUEUED)
    """Status of the job when the sweep was advanced last."""
    score: Mapped[float | None]
    """mAP of the student, 0 to 1; null unless the job has succeeded."""
    seconds: Mapped[float] = mapped_column(default=0.0)
    """Running time of the job's attempts."""
    error: Mapped[Document | None]
    """The `frs.events.ErrorInfo` of the job."""

    __table_args__ = (Index("uq_sweep_trials_run", "sweep_id", "setting", "rung", "seed", unique=True),)
