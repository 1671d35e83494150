"""The states of a job, why it waits, why it ended, and which action is allowed when. Closed lists, all text."""

from enum import StrEnum


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})


class WaitingReason(StrEnum):
    """Why a queued job waits."""

    TEACHER = "waiting_for_teacher"
    RUNS = "waiting_for_runs"
    DEVICE = "waiting_for_device"
    WORKER = "waiting_for_worker"
    DATASET = "dataset_not_on_worker"
    WEIGHTS = "weights_not_on_worker"
    SPEC = "spec_unknown_to_worker"
    STORAGE = "waiting_for_storage"
    RETRY_BACKOFF = "retry_backoff"


WAITING_HINTS: dict[WaitingReason, str] = {
    WaitingReason.TEACHER: "Nothing to do: it starts when that job has succeeded. Or cancel it and name another teacher.",
    WaitingReason.RUNS: "Nothing to do: it starts when all of them have succeeded.",
    WaitingReason.DEVICE: "See GET /workers; ask for fewer `resources.devices`, or start a worker with more GPUs.",
    WaitingReason.WORKER: "See GET /workers and GET /queue; start a worker with `frs up` or `python -m worker`.",
    WaitingReason.DATASET: "Put the very files that were registered below `FRS_DATASETS_ROOT` of a worker, which looks again within a minute; changed ones need a new name.",
    WaitingReason.WEIGHTS: "Put the very file that was named below `FRS_MODELS_ROOT` of a worker, which looks again within a minute.",
    WaitingReason.SPEC: "See GET /workers for their versions; start a worker of the version that took the job.",
    WaitingReason.STORAGE: "Free space in the data folder; the job goes on by itself.",
    WaitingReason.RETRY_BACKOFF: "Nothing to do: it is tried again by itself.",
}


class EndReason(StrEnum):
    COMPLETED = "completed"
    STOPPED_EARLY = "stopped_early"
    TIME_LIMIT = "time_limit"
    CANCELLED_BY_USER = "cancelled_by_user"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    BAD_DATASET = "bad_dataset"
    BAD_TEACHER = "bad_teacher"
    TEACHER_REFUSED = "teacher_refused"
    DEPENDENCY_FAILED = "dependency_failed"
    HUNG = "hung"
    POISON = "poison"
    INTERNAL_ERROR = "internal_error"


class AttemptEnd(StrEnum):
    """How one attempt ended; the first three are also how the job did."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"
    """The trainer died; its supervisor gave the job back."""
    LOST = "lost"
    """The lease expired: nobody was left to give the job back."""
    RELEASED = "released"
    """Given back in good order, such as on a deploy or for want of storage; not held against the job."""


WITHOUT_PROGRESS = frozenset({AttemptEnd.CRASHED, AttemptEnd.LOST})
"""Ends that count towards `EndReason.POISON`."""


class DatasetStatus(StrEnum):
    CHECKING = "checking"
    READY = "ready"
    HAS_PROBLEMS = "has_problems"


class DetectorStatus(StrEnum):
    READY = "ready"
    IMPORTING = "importing"
    REFUSED = "refused"


class RequestKind(StrEnum):
    PROBE = "probe"
    """What a plan would cost, by a few steps of it."""
    IMPORT = "import"
    """Reading an uploaded detector in a jail."""


class RequestStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Action(StrEnum):
    CANCEL = "cancel"
    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    DELETE = "delete"


ALLOWED: dict[Action, frozenset[JobStatus]] = {
    Action.CANCEL: frozenset({JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED}),
    Action.STOP: frozenset({JobStatus.RUNNING}),
    Action.PAUSE: frozenset({JobStatus.QUEUED, JobStatus.RUNNING}),
    Action.RESUME: frozenset({JobStatus.PAUSED, JobStatus.FAILED, JobStatus.CANCELLED}),
    Action.RETRY: frozenset({JobStatus.FAILED, JobStatus.CANCELLED}),
    Action.DELETE: TERMINAL,
}
"""The one table of which action a job takes in which state."""


def allowed_actions(status: JobStatus) -> list[Action]:
    return [action for action, statuses in ALLOWED.items() if status in statuses]
