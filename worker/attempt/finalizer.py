"""The transaction that ends an attempt: which status, end reason and error a job gets."""

import errno
import os
import re
import signal
from collections.abc import Callable
from functools import partial

from sqlalchemy.orm import Session

from frs.errors import FrsError, NodesUnavailable, OutOfMemory, StorageFull
from frs.events import ErrorInfo, Outcome
from store.errors import ArtifactsUnavailable
from store.jobs import lifecycle
from store.jobs.lease import Lease
from store.states import EndReason, JobStatus, WaitingReason

Finalizer = Callable[[Session, Lease], JobStatus]
"""Writes the end of an attempt and returns the job's new status. Raises LeaseLost."""
STORAGE_DELAY = 30.0
"""Seconds until a job or worker request that waits for storage may be claimed again."""
STORAGE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""Errors after which a job waits for storage; after any other OSError the attempt counts as crashed."""
_MAX_MESSAGE = 4000
_OUT_OF_MEMORY = re.compile(r"^(\w+\.)*(MemoryError|OutOfMemoryError)\b", re.MULTILINE)
"""The last line of a traceback when memory ran out."""
_LOGS_HINT = "See the job's log."


def finalizer_for(
    outcome: Outcome | None, exit_code: int | None, tail: str, killed_for_memory: bool = False
) -> Finalizer:
    """Return the finalizer for the trainer's outcome event or, without one, for its exit code.

    A killed trainer's job returns to the queue, unless it was killed because memory ran out. `tail` is the end of the
    trainer's output.
    """
    if outcome is not None:
        return _finalizer_for_outcome(outcome)
    if exit_code == os.EX_TEMPFAIL:
        return requeued(attempt_counts=False)
    if (killed_for_memory and exit_code == -signal.SIGKILL) or (exit_code and _OUT_OF_MEMORY.search(tail)):
        return out_of_memory(tail)
    if exit_code is not None and exit_code < 0:
        return requeued(attempt_counts=True)
    how = "could not be started" if exit_code is None else f"ended with exit code {exit_code} and without an outcome"
    return failed(EndReason.INTERNAL_ERROR, f"The trainer {how}.", tail)


def cancelled() -> Finalizer:
    """Return the finalizer of a job that a user has cancelled."""
    return partial(lifecycle.finish, status=JobStatus.CANCELLED, end_reason=EndReason.CANCELLED_BY_USER)


def stalled(seconds: float, phase: str, tail: str) -> Finalizer:
    """Return the finalizer for a trainer that was silent for `seconds` in `phase`."""
    return failed(EndReason.HUNG, f"The trainer sent no event or output for {seconds:g} seconds while {phase}.", tail)


def out_of_memory(tail: str) -> Finalizer:
    """Return the finalizer for a trainer that ran out of memory."""
    message = f"The trainer ran out of memory.\n{tail[-_MAX_MESSAGE:]}".strip()
    error = ErrorInfo(code=OutOfMemory.code, message=message, hint=OutOfMemory.hint_by_default)
    return failed_with(EndReason.OUT_OF_MEMORY, error)


def requeued(message: str = "", *, attempt_counts: bool) -> Finalizer:
    """Return the finalizer that returns the job to the queue; `message` is shown in the job's history."""
    return partial(lifecycle.requeue, message=message, attempt_counts=attempt_counts)


def waiting_for_storage(message: str) -> Finalizer:
    """Return the finalizer that returns the job to the queue until storage may be available again."""
    return partial(
        lifecycle.requeue, reason=WaitingReason.STORAGE, message=message, delay=STORAGE_DELAY, attempt_counts=False
    )


def storage_message(error: OSError) -> str:
    """Return the message of a job or worker request that waits because of this error."""
    if isinstance(error, ArtifactsUnavailable):
        return f"The artifact store cannot be used: {error.strerror}."
    return f"A file could not be written: {error.strerror or type(error).__name__}."


def failed(reason: EndReason, message: str, tail: str = "") -> Finalizer:
    """Return the finalizer of a failed job; the end of the trainer's output is appended to the message."""
    full_message = f"{message}\n{tail[-_MAX_MESSAGE:]}".strip()
    return failed_with(reason, ErrorInfo(code=reason, message=full_message, hint=_LOGS_HINT))


def failed_by(error: FrsError) -> Finalizer:
    """Return the finalizer of a job whose inputs raised the error."""
    reason = _end_reason(error.end_reason, EndReason.INTERNAL_ERROR)
    return failed_with(reason, ErrorInfo(code=error.code, message=error.message, hint=error.hint))


def failed_with(reason: EndReason, error: ErrorInfo) -> Finalizer:
    """Return the finalizer of a job that failed with the error; an error without a hint gets a general one."""
    with_hint = error if error.hint else error.model_copy(update={"hint": _LOGS_HINT})
    return partial(lifecycle.finish, status=JobStatus.FAILED, end_reason=reason, error=with_hint)


def _finalizer_for_outcome(outcome: Outcome) -> Finalizer:
    if outcome.status == "interrupted":
        return requeued(attempt_counts=False)
    if outcome.error and outcome.error.code == StorageFull.code:
        return waiting_for_storage(outcome.error.message)
    if outcome.error and outcome.error.code == NodesUnavailable.code:
        return requeued(outcome.error.message, attempt_counts=True)
    if outcome.status == "failed":
        error = outcome.error or ErrorInfo(code="internal_error", message="The trainer failed without a reason.")
        return failed_with(_end_reason(outcome.end_reason, EndReason.INTERNAL_ERROR), error)
    reason = _end_reason(outcome.end_reason, EndReason.COMPLETED)
    return partial(lifecycle.finish, status=JobStatus.SUCCEEDED, end_reason=reason)


def _end_reason(text: str | None, default: EndReason) -> EndReason:
    return EndReason(text) if text in set(EndReason) else default
