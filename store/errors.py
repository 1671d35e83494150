"""Errors raised by the store, as subclasses of `frs.errors.FrsError`: a stable code, a message, a hint."""

import errno
from collections.abc import Sequence

from frs.errors import FrsError
from store.states import Action, JobStatus


class JobNotFound(FrsError):
    """No job has that id."""

    code = "job_not_found"
    hint_by_default = "The list of jobs has their ids."


class LeaseLost(FrsError):
    """The attempt no longer holds the job: the job ended, or another attempt runs.

    The caller stops its trainer and writes nothing more.
    """

    code = "lease_lost"
    hint_by_default = "Stop this attempt's trainer; the job continues without it."


class ActionNotAllowed(FrsError):
    """The action is not allowed in the job's status."""

    code = "action_not_allowed"
    hint_by_default = "See `allowed_actions` of the job."

    def __init__(self, action: Action, status: JobStatus, allowed_actions: Sequence[Action]) -> None:
        allowed = ", ".join(allowed_actions) or "none"
        super().__init__(f"Action `{action}` is not allowed on a {status} job.", f"Allowed now: {allowed}.")
        self.allowed_actions = list(allowed_actions)


class JobInUse(FrsError):
    """A job that has not ended needs the job that is to be deleted."""

    code = "job_in_use"
    hint_by_default = "First cancel or delete the jobs that need it."


class IdempotencyKeyReused(FrsError):
    """The idempotency key was used for a different request."""

    code = "idempotency_key_reused"
    hint_by_default = "Send a new Idempotency-Key with a new request, or the same request with the same key."


class AlreadyCreated(FrsError):
    """The same request was sent before under the same idempotency key, and its answer had a secret."""

    code = "already_created"
    hint_by_default = "Without the secret, delete or revoke it, and send the request with a new Idempotency-Key."

    def __init__(self, id: str) -> None:
        super().__init__(f"This request has already created {id}; its secret was shown in that answer alone.")


class AlreadySubmitted(Exception):
    """The same request was sent before under the same idempotency key; answer with the job it created."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"This request has already created job {job_id}.")
        self.job_id = job_id


class SweepNotFound(FrsError):
    """No sweep has that id."""

    code = "sweep_not_found"
    hint_by_default = "The list of sweeps has their ids."


class SweepActionNotAllowed(FrsError):
    """The action is not allowed in the sweep's status."""

    code = "sweep_action_not_allowed"
    hint_by_default = "Stop a sweep before it is deleted; resume one that is stopped or has failed."


class LastAdminKey(FrsError):
    """Revoking the key would leave no valid admin key."""

    code = "last_admin_key"
    hint_by_default = "First create another admin key."


class TooManyWebhooks(FrsError):
    """The owner has as many webhooks as allowed."""

    code = "too_many_webhooks"
    hint_by_default = "Delete one; an operator sets the limit with FRS_MAX_WEBHOOKS."


class InvalidKey(FrsError):
    """The artifact key is malformed or could name a file outside the artifacts folder."""

    code = "invalid_artifact_key"
    hint_by_default = "The job's list of artifacts has their names."


class ArtifactNotFound(FrsError):
    """No artifact is stored under that key."""

    code = "artifact_not_found"
    hint_by_default = "The job's list of artifacts has their names."


class ArtifactCorrupt(FrsError):
    """The bytes do not have the expected size or SHA-256."""

    code = "artifact_corrupt"
    hint_by_default = "The stored file has changed: `retry` the job, or restore the file."


class ArtifactsUnavailable(OSError):
    """The artifact storage does not answer or denies access.

    An operator has to act; jobs wait and are retried.
    """

    def __init__(self, message: str) -> None:
        super().__init__(errno.EIO, message)


class DatabaseNotReady(FrsError):
    """The database cannot be reached, has no tables or tables of an older revision."""

    code = "database_not_ready"
    hint_by_default = "Run `python -m store init`."
