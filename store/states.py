"""Closed lists of states, reasons and actions, all stored as text, and the table of allowed actions."""

from collections.abc import Collection, Mapping
from enum import StrEnum


class JobStatus(StrEnum):
    """State of a job."""

    QUEUED = "queued"
    """Waits for a worker; `WaitingReason` is the cause."""
    RUNNING = "running"
    """One attempt runs under a lease."""
    PAUSED = "paused"
    """Taken out of the queue by a user until `resume`."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended: succeeded, failed or cancelled."""
        return self in TERMINAL


TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
"""Statuses of a job that has ended. `resume` and `retry` can queue a failed or cancelled job again."""


class WaitingReason(StrEnum):
    """Why a queued job waits."""

    DETECTOR = "waiting_for_detector"
    """The job whose student it uses has not succeeded."""
    RUNS = "waiting_for_runs"
    """A comparison waits for the runs it compares."""
    DEVICE = "waiting_for_device"
    """No worker has as many GPUs as the job requests."""
    NODES = "waiting_for_nodes"
    """The job runs on several hosts and needs a worker for as many."""
    WORKER = "waiting_for_worker"
    """No worker runs, or all of them are busy."""
    DATASET = "dataset_not_on_worker"
    """No suitable worker has the registered files of the data set."""
    WEIGHTS = "weights_not_on_worker"
    """No suitable worker has the weights file."""
    SPEC = "spec_unknown_to_worker"
    """The job's spec was written by another version that no suitable worker can read."""
    STORAGE = "waiting_for_storage"
    """A disk has too little free space, or the artifact storage is unavailable."""


WAITING_HINTS: dict[WaitingReason, str] = {
    WaitingReason.DETECTOR: (
        "No action is needed: the job starts when that job has succeeded. "
        "Or cancel it and submit it with another detector."
    ),
    WaitingReason.RUNS: "No action is needed: the job starts when all runs have succeeded.",
    WaitingReason.DEVICE: "Request fewer GPUs with `resources.devices`, or start a worker with more GPUs.",
    WaitingReason.NODES: (
        "Start a worker with `--once --nodes` and this number, and `python -m frs join` on the other hosts, as "
        "docs/schedulers.md shows; or submit the job without `resources.nodes`."
    ),
    WaitingReason.WORKER: (
        "The lists of workers and of queued jobs show what is busy. "
        "To start a worker: `frs up`, or for containers `docker compose up -d worker`."
    ),
    WaitingReason.DATASET: (
        "Copy the files exactly as registered below `FRS_DATASETS_ROOT` of a worker, which checks again within a "
        "minute; register changed files under a new name."
    ),
    WaitingReason.WEIGHTS: (
        "Put the file, unchanged, below `FRS_MODELS_ROOT` of a worker, which checks again within a minute."
    ),
    WaitingReason.SPEC: "Start a worker of the version that accepted the job; the list of workers has their versions.",
    WaitingReason.STORAGE: "Free disk space in the data folder; the job then continues automatically.",
}
"""The next step for the user, by waiting reason."""


class EndReason(StrEnum):
    """Why a job ended."""

    COMPLETED = "completed"
    """All steps were done."""
    STOPPED_EARLY = "stopped_early"
    """A user sent `stop`; the weights trained so far are kept and evaluated."""
    TIME_LIMIT = "time_limit"
    """`resources.max_minutes` were over; the weights trained so far are kept and evaluated."""
    NO_IMPROVEMENT = "no_improvement"
    """`schedule.patience` evaluations brought no new highest mAP; the weights trained so far are kept and evaluated."""
    CANCELLED_BY_USER = "cancelled_by_user"
    """A user sent `cancel`."""
    DIVERGED = "diverged"
    """The loss was not finite."""
    OUT_OF_MEMORY = "out_of_memory"
    """GPU or host memory ran out."""
    INVALID_SPEC = "invalid_spec"
    """The spec cannot be run, e.g. because mmdet has no such config."""
    DEVICE_UNAVAILABLE = "device_unavailable"
    """The worker's devices cannot run the job as requested: their number or the precision."""
    BAD_DATASET = "bad_dataset"
    """The data set is missing or cannot be trained on."""
    CLASS_MISMATCH = "class_mismatch"
    """A detector, the training split or the validation split has other classes than the others."""
    BAD_WEIGHTS = "bad_weights"
    """Weights of the teacher or the student are missing or cannot be used; the job's `error` names them."""
    BAD_TEACHER = "bad_teacher"
    """The teacher changed during training; in jobs of 0.2, also its weights or the student's could not be used."""
    TEACHER_REFUSED = "teacher_refused"
    """The teacher does not match the student or is not good enough to distil from; the job's `error` has the cause."""
    UNSUPPORTED_DETECTOR = "unsupported_detector"
    """A detector of a base config cannot be built, trained or distilled; the job's `error` has the cause."""
    EXPORT_UNSUPPORTED = "export_unsupported"
    """The student cannot be exported; the job's `error` has the cause."""
    EXPORT_FAILED = "export_failed"
    """An exported file does not run."""
    RUNS_NOT_COMPARABLE = "runs_not_comparable"
    """The runs of a comparison differ in more than their training, or their detections are missing."""
    DEPENDENCY_FAILED = "dependency_failed"
    """The job whose student it uses, a compared run, or the job for whose verdict it runs, failed or was cancelled."""
    HUNG = "hung"
    """The trainer sent no event within the stall timeout."""
    POISON = "poison"
    """Several attempts in a row died without a new training checkpoint."""
    INTERNAL_ERROR = "internal_error"
    """An unexpected error."""


class AttemptEnd(StrEnum):
    """How one attempt ended. The first three values are also the status of the job."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"
    """The trainer died; its supervisor returned the job to the queue."""
    LOST = "lost"
    """The lease expired: the worker, its host or the database failed."""
    RELEASED = "released"
    """The worker returned the job cleanly, for example on a deploy or when storage ran out; does not count as a
    failure."""


MAX_WITHOUT_PROGRESS: dict[AttemptEnd, int] = {AttemptEnd.CRASHED: 3, AttemptEnd.LOST: 10}
"""Attempts that may end like this since the newest training checkpoint; the last one ends the job as `poison`.

The ends are counted apart, because a lost attempt is a failure of the worker, its host or the database, not of the job.
A job that takes its host down is only stopped by the second limit.
"""


class DatasetStatus(StrEnum):
    """State of a registered data set."""

    CHECKING = "checking"
    """The check is running."""
    READY = "ready"
    """The data set can be trained on."""
    HAS_PROBLEMS = "has_problems"
    """The check found errors."""


class DetectorStatus(StrEnum):
    """State of a registered detector."""

    READY = "ready"
    """The detector can be used."""
    IMPORTING = "importing"
    """The upload has not been read by a worker yet."""
    REFUSED = "refused"
    """The upload is invalid; `Detector.error` contains the cause."""


class RequestKind(StrEnum):
    """Kind of a worker request."""

    PROBE = "probe"
    """Measure time and memory of a plan by running a few of its steps."""
    IMPORT = "import"
    """Read an uploaded detector in an isolated process."""


class RequestStatus(StrEnum):
    """State of a worker request."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class WebhookEvent(StrEnum):
    """An event of a job that is sent to webhooks."""

    STARTED = "job.started"
    """A worker has started an attempt; again after a failure of the worker, a resume or a retry."""
    PAUSED = "job.paused"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELLED = "job.cancelled"


class WebhookStatus(StrEnum):
    """State of a webhook."""

    ACTIVE = "active"
    FAILING = "failing"
    """The last attempt failed."""
    DEAD = "dead"
    """A delivery was given up, and none has succeeded since. New events are sent all the same."""


class DeliveryStatus(StrEnum):
    """State of the delivery of an event to a webhook."""

    PENDING = "pending"
    """Is sent at its next attempt."""
    DELIVERED = "delivered"
    """The receiver answered with a status of 200 to 299."""
    DEAD = "dead"
    """Given up after 24 h of failed attempts."""


class SweepStatus(StrEnum):
    """State of a sweep."""

    SEARCHING = "searching"
    """Its trials are posted and run."""
    CONFIRMING = "confirming"
    """The best setting is chosen; its confirming job runs on new seeds."""
    SUCCEEDED = "succeeded"
    """The confirming job has a result."""
    FAILED = "failed"
    """It posts no more jobs; `Sweep.error` has the reason. It can be resumed."""
    STOPPED = "stopped"
    """A user stopped it; its jobs that had not ended are paused. It can be resumed."""


ACTIVE_SWEEPS = frozenset({SweepStatus.SEARCHING, SweepStatus.CONFIRMING})


class SweepFailure(StrEnum):
    """Why a sweep has failed."""

    TOO_MANY_FAILURES = "too_many_failures"
    """Too many of its trials failed."""
    NO_RESULT = "no_result"
    """No setting has a result of every tuning seed."""
    CONFIRMATION_FAILED = "confirmation_failed"
    """The confirming job, or a job of its run group, did not succeed."""
    KEY_INVALID = "key_invalid"
    """The API key of the sweep was revoked or has expired."""
    REFERENCE_DELETED = "reference_deleted"
    """The data set, or the job of the teacher, was deleted."""
    SPEC_UNREADABLE = "spec_unreadable"
    """This version cannot read the sweep, which another version stored."""


SWEEP_HINTS: dict[SweepFailure, str] = {
    SweepFailure.TOO_MANY_FAILURES: "Look at the errors of the trials; `retry` their jobs, then resume the sweep.",
    SweepFailure.NO_RESULT: "Look at the errors of the trials; `retry` their jobs, then resume the sweep.",
    SweepFailure.CONFIRMATION_FAILED: "`retry` the failed job, or delete the confirming job; then resume the sweep.",
    SweepFailure.KEY_INVALID: "Resume the sweep with a valid key of its owner.",
    SweepFailure.REFERENCE_DELETED: "Post a new sweep on objects that exist.",
    SweepFailure.SPEC_UNREADABLE: "Post the sweep again.",
}
"""The next step for each failure."""


class SearchEnd(StrEnum):
    """What ended the search of a sweep."""

    COMPLETE = "complete"
    """All trials have ended."""
    MAX_JOBS = "max_jobs"
    """The budget of jobs is used up."""
    MAX_MINUTES = "max_minutes"
    """The budget of minutes is used up."""


class Action(StrEnum):
    """An action that a user can request on a job."""

    CANCEL = "cancel"
    """End the job without a result."""
    STOP = "stop"
    """End training at the next step; keep and evaluate the weights trained so far."""
    PAUSE = "pause"
    """Save a checkpoint and leave the worker until `resume`."""
    RESUME = "resume"
    """Queue the job again, to continue from the newest checkpoint."""
    RETRY = "retry"
    """Queue the job again, to start from scratch."""
    DELETE = "delete"
    """Delete the job with its files."""


ALLOWED: dict[Action, frozenset[JobStatus]] = {
    Action.CANCEL: frozenset({JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED}),
    Action.STOP: frozenset({JobStatus.RUNNING}),
    Action.PAUSE: frozenset({JobStatus.QUEUED, JobStatus.RUNNING}),
    Action.RESUME: frozenset({JobStatus.PAUSED, JobStatus.FAILED, JobStatus.CANCELLED}),
    Action.RETRY: frozenset({JobStatus.FAILED, JobStatus.CANCELLED}),
    Action.DELETE: TERMINAL,
}
"""The statuses in which each action is allowed; the only such table."""


def allowed_actions(status: JobStatus) -> list[Action]:
    """Return the actions allowed in that status, in the order of `Action`."""
    return [action for action, statuses in ALLOWED.items() if status in statuses]


class Scope(StrEnum):
    """What a key may do. `INCLUDED_SCOPES` lists the scopes that a scope includes."""

    READ = "read"
    """Read the jobs, data sets and detectors of its owner."""
    SUBMIT = "submit"
    """Create, change and delete them."""
    PRIORITY = "priority"
    """Give jobs a priority above 0; a supplement to `submit`."""
    METRICS = "metrics"
    """Read the metrics of the service, for a monitoring system."""
    ADMIN = "admin"
    """Read and change those of every owner, create and revoke keys, read the state of the whole service."""


INCLUDED_SCOPES: Mapping[Scope, Collection[Scope]] = {Scope.SUBMIT: (Scope.READ,), Scope.ADMIN: tuple(Scope)}
"""The further scopes that a scope includes."""
