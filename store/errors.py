"""What the store refuses, in the words of `frs.errors`: a stable code, what happened, what to do next."""

import errno
from collections.abc import Sequence

from frs.errors import FrsError
from store.states import Action, JobStatus


class JobNotFound(FrsError):
    code = "job_not_found"
    hint_by_default = "See GET /jobs."


class LeaseLost(FrsError):
    """The job has ended, or another attempt holds it. Whoever sees this stops its trainer and writes nothing more."""

    code = "lease_lost"
    hint_by_default = "Stop this attempt's trainer; the job goes on without it."


class ActionNotAllowed(FrsError):
    code = "action_not_allowed"
    hint_by_default = "See `allowed_actions` of the job."

    def __init__(self, action: Action, status: JobStatus, allowed_actions: Sequence[Action]) -> None:
        allowed = ", ".join(allowed_actions) or "none"
        super().__init__(f"A {status} job takes no {action}.", f"Allowed now: {allowed}.")
        self.allowed_actions = list(allowed_actions)


class JobInUse(FrsError):
    code = "job_in_use"
    hint_by_default = "Cancel or delete the jobs that need it first."


class IdempotencyKeyReused(FrsError):
    code = "idempotency_key_reused"
    hint_by_default = "Send a new Idempotency-Key with a new request, or the same request with the same key."


class AlreadySubmitted(Exception):
    """The same request under the same idempotency key: answer with the job it made the first time."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Job {job_id} was made by this very request.")
        self.job_id = job_id


class LastAdminKey(FrsError):
    code = "last_admin_key"
    hint_by_default = "Make another admin key with POST /api-keys first."


class InvalidKey(FrsError):
    """An artifact key that could name something outside the artifacts folder."""

    code = "invalid_artifact_key"
    hint_by_default = "See GET /jobs/{id}/artifacts."


class ArtifactNotFound(FrsError):
    code = "artifact_not_found"
    hint_by_default = "See GET /jobs/{id}/artifacts."


class ArtifactCorrupt(FrsError):
    """The bytes are not the announced ones."""

    code = "artifact_corrupt"
    hint_by_default = "Its storage has changed it: `retry` the job, or restore the file."


class ArtifactsUnavailable(OSError):
    """Where they are kept does not answer, or refuses us: what somebody sees to, and worth waiting for."""

    def __init__(self, said: str) -> None:
        super().__init__(errno.EIO, said)


class DatabaseNotReady(FrsError):
    code = "database_not_ready"
    hint_by_default = "Run `python -m store init`."
