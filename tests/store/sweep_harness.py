"""Sweeps on a database: specs, and workers that end trials with a given mAP."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from database_harness import DatabaseHarness
from sqlalchemy import select, update

from frs import events
from frs.evaluation.verdict import Comparison, ImageInterval, Pair, SeedInterval
from frs.events import ErrorInfo
from store.db.audit import Actor
from store.db.sweep_tables import Sweep, Trial
from store.db.tables import Attempt, Job
from store.jobs import lifecycle, recording
from store.settings import Settings
from store.states import EndReason, JobStatus
from store.sweeps import actions, space
from store.sweeps.advance import advance
from store.sweeps.definition import SweepSpec

ACTOR = Actor("alice", None)
STUDENT = {"architecture": "gfl"}
DISTILL = {"dataset": "shapes", "teacher": STUDENT, "student": STUDENT, "schedule": {"epochs": 9, "seed": 5}}
TRAIN = {"kind": "train", "dataset": "shapes", "student": STUDENT, "schedule": {"epochs": 9}}
RATES = {"schedule.optimizer.learning_rate": [0.1, 0.01, 0.001]}
FAILURE = ErrorInfo(code="diverged", message="The loss is not finite.", hint="Lower the learning rate.")


def sweep_spec(spec: dict[str, Any] | None = None, **fields: Any) -> SweepSpec:
    """Return a sweep over three learning rates with one tuning seed, with `fields` changed."""
    return SweepSpec.model_validate({"spec": spec or TRAIN, "space": RATES, "seeds": 1, "concurrency": 64} | fields)


@dataclass
class SweepHarness:
    """A sweep, the service that advances it, and a worker."""

    harness: DatabaseHarness
    id: str
    settings: Settings

    @classmethod
    def start(
        cls, harness: DatabaseHarness, spec: SweepSpec, settings: Settings | None = None, **options: Any
    ) -> "SweepHarness":
        """Add the sweep, without advancing it."""
        space.check(spec)
        references = {"dataset_id": "ds_shapes", "actor": ACTOR} | options
        sweep, _ = harness.do(actions.add, spec, **references)
        return cls(harness, sweep.id, settings or Settings())

    @property
    def row(self) -> Sweep:
        """The sweep."""
        return self.harness.rows(select(Sweep).where(Sweep.id == self.id))[0]

    @property
    def trials(self) -> list[Trial]:
        """The trials by number."""
        return list(self.harness.rows(select(Trial).where(Trial.sweep_id == self.id).order_by(Trial.number)))

    def advance(self) -> list[str]:
        """Advance the sweep and return the ids of the posted jobs."""
        return self.harness.do(advance, self.settings, self.id)

    def act(self, action: Callable[..., Any]) -> Any:
        """Stop, resume or delete the sweep."""
        return self.harness.do(action, self.id, ACTOR)

    def score(self, job_id: str, mAP: float) -> None:
        """Run a job to its end with this mAP."""
        lease = self.harness.claim(job_id)
        evaluation = events.Evaluation(
            role="student", step=1, epoch=1, metrics={"bbox_mAP": mAP}, per_class={}, images=1, detections=1, last=True
        )
        self.harness.do(recording.record, lease, [evaluation])
        self.harness.do(lifecycle.finish, lease, JobStatus.SUCCEEDED, EndReason.COMPLETED)

    def fail(self, job_id: str) -> None:
        """Run a job that fails."""
        self.harness.do(
            lifecycle.finish, self.harness.claim(job_id), JobStatus.FAILED, EndReason.DIVERGED, error=FAILURE
        )

    def score_all(self, mAP_of: Callable[[Trial], float]) -> None:
        """Run the trials that have not ended, and advance, until the search has posted all of them."""
        while waiting := [trial for trial in self.trials if not trial.status.is_terminal]:
            for trial in waiting:
                self.score(str(trial.job_id), mAP_of(trial))
            self.advance()

    def compare(self, job_id: str, *gains: float) -> None:
        """Run a comparison that finds these gains, one per seed."""
        lease = self.harness.claim(job_id)
        self.harness.do(recording.record, lease, [events.Facts(values={"comparison": comparison(*gains)})])
        self.harness.do(lifecycle.finish, lease, JobStatus.SUCCEEDED, EndReason.COMPLETED)

    def run_for(self, job_id: str, seconds: float) -> None:
        """Make the newest attempt of a running job as old as this."""

        def move(session: Any) -> None:
            started = Attempt.started_at - seconds
            session.execute(update(Attempt).where(Attempt.job_id == job_id).values(started_at=started))

        self.harness.do(move)

    def specs(self, job_ids: list[str]) -> list[dict[str, Any]]:
        """Return the specs of jobs, in the order of the ids."""
        jobs = {job.id: job.spec for job in self.harness.rows(select(Job).where(Job.id.in_(job_ids)))}
        return [jobs[job_id] for job_id in job_ids]


def comparison(*gains: float) -> dict[str, Any]:
    """Return the comparison of runs with these gains, whose interval over seeds is the mean +- 0.01."""
    mean = sum(gains) / len(gains)
    return Comparison(
        gain=mean,
        image_interval=ImageInterval(low=mean, high=mean, level=0.95, resamples=1, images=1, by_number={}),
        seed_interval=SeedInterval(low=mean - 0.01, high=mean + 0.01, mean=mean, level=0.95, n=len(gains)),
        pairs=[Pair(seed=seed, student=0.5 + gain, baseline=0.5, gain=gain) for seed, gain in enumerate(gains)],
    ).model_dump(mode="json")
