"""Response models of sweeps. The request body of `POST /sweeps` is `store.sweeps.definition.SweepSpec`."""

from typing import Literal

from pydantic import JsonValue

from api.http.schemas import AsStored, ResponseModel, ResponseTime
from api.jobs.schemas import JobError
from frs.evaluation.verdict import Comparison, Interval, Verdict
from store.states import JobStatus, SearchEnd, SweepStatus
from store.sweeps.definition import SweepSpec


class Sweep(ResponseModel):
    """A sweep with its current state."""

    id: str
    """Its jobs have this id as a tag: GET /jobs?tag=."""
    name: str | None
    owner: str
    status: SweepStatus
    search_end: SearchEnd | None
    """What ended the search; null while it lasts."""
    error: JobError | None
    """Why the sweep has failed."""
    settings: int
    """Number of settings to try; 0 if this version cannot read the spec."""
    trials_posted: int
    trials_ended: int
    trials_failed: int
    """Trials that have failed or were cancelled."""
    minutes: float
    """Running time of the trials, summed."""
    confirm_job_id: str | None
    """The job that compares the best setting with its baseline on new seeds."""
    spec: AsStored[SweepSpec]
    """The request with all defaults filled in."""
    created_at: ResponseTime
    finished_at: ResponseTime | None


class SettingRow(ResponseModel):
    """The trials of one setting with one length of the schedule."""

    setting: int
    """Number of the setting, from 0."""
    values: dict[str, JsonValue]
    """Values of the searched fields."""
    epochs: int | None
    """Length of the schedule, for `asha`; null: that of the spec."""
    seeds: int
    """Number of tuning seeds with a result."""
    mAP: float | None
    """Mean mAP over the tuning seeds, 0 to 1; null unless each of them has succeeded."""
    interval: Interval | None
    """95 % interval of the mean over the seeds (Student's t); null with fewer than two seeds."""


class SweepTrial(ResponseModel):
    """One job of the search."""

    number: int
    """Counts from 1."""
    setting: int
    epochs: int | None
    """Length of the schedule, for `asha`; null: that of the spec."""
    seed: int
    job_id: str | None
    """Null if the job was deleted."""
    status: JobStatus
    mAP: float | None
    """mAP of the student, 0 to 1; null unless the trial has succeeded."""
    minutes: float
    """Running time."""
    error: JobError | None


class Confirmation(ResponseModel):
    """The best setting on seeds that took no part in the choice."""

    job_id: str | None
    """The confirming job; GET /jobs/{id}/report has its full report. Null if it was deleted."""
    first_seed: int
    seeds: int
    """Number of new seeds; 1 for kind `train`."""
    mAP: float | None
    """mAP of the student, 0 to 1, mean over the new seeds; null until the job has succeeded."""
    comparison: Comparison | None
    """The gain over the baseline, with its intervals; null until the job has succeeded, and for kind `train`."""
    verdict: Verdict | None
    """Whether the best setting is better than its baseline: the verdict of the sweep. Null until it is known."""
    verdict_by: Literal["images", "seeds"] | None
    """What the interval of the verdict covers: over seeds from 3 new seeds on."""
    interval: Interval | None
    """The interval of the gain that the verdict follows."""
    caveat: str
    """What the verdict does not cover."""


class SweepDetails(Sweep):
    """A sweep with its results."""

    table: list[SettingRow]
    """Settings by rank, the best first; those with the longest schedule come first, then those without a result."""
    best: SettingRow | None
    """The chosen setting; null until the search has ended."""
    confirmation: Confirmation | None
    """Null until a setting is chosen."""
    trials: list[SweepTrial]
