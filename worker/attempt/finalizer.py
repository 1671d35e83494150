"""How an attempt ends, and what the store is to be told of it."""

import os
import re
import signal
from collections.abc import Callable
from functools import partial

from sqlalchemy.orm import Session

from frs.errors import FrsError, OutOfMemory, StorageFull
from frs.events import ErrorInfo, Outcome
from store.jobs import lifecycle
from store.jobs.lease import Lease
from store.states import EndReason, JobStatus, WaitingReason

Finalizer = Callable[[Session, Lease], JobStatus]
STORAGE_DELAY = 30.0
_MAX_MESSAGE = 4000
_OUT_OF_MEMORY = re.compile(r"^(\w+\.)*(MemoryError|OutOfMemoryError)\b", re.MULTILINE)
"""As a traceback ends."""


def finalizer_for(
    outcome: Outcome | None, exit_code: int | None, tail: str, killed_for_memory: bool = False
) -> Finalizer:
    """The trainer's own word decides; without one, its exit code: killed goes back to the queue, unless for memory."""
    if outcome is not None:
        return _by(outcome)
    if exit_code == os.EX_TEMPFAIL:
        return given_back(attempt_counts=False)
    if (killed_for_memory and exit_code == -signal.SIGKILL) or (exit_code and _OUT_OF_MEMORY.search(tail)):
        return out_of_memory(tail)
    if exit_code is not None and exit_code < 0:
        return given_back(attempt_counts=True)
    how = "could not be started" if exit_code is None else f"ended with exit code {exit_code} and without an outcome"
    return failed(EndReason.INTERNAL_ERROR, f"The trainer {how}.", tail)


def cancelled() -> Finalizer:
    return partial(lifecycle.finish, status=JobStatus.CANCELLED, end_reason=EndReason.CANCELLED_BY_USER)


def stalled(seconds: float, phase: str, tail: str) -> Finalizer:
    return failed(EndReason.HUNG, f"The trainer said nothing for {seconds:g} seconds while {phase}.", tail)


def out_of_memory(tail: str) -> Finalizer:
    said = f"The trainer ran out of memory.\n{tail[-_MAX_MESSAGE:]}".strip()
    problem = ErrorInfo(code=OutOfMemory.code, message=said, hint=OutOfMemory.hint_by_default)
    return failed_with(EndReason.OUT_OF_MEMORY, problem)


def given_back(*, attempt_counts: bool) -> Finalizer:
    return partial(lifecycle.requeue, attempt_counts=attempt_counts)


def waiting_for_storage(said: str) -> Finalizer:
    return partial(
        lifecycle.requeue, reason=WaitingReason.STORAGE, message=said, delay=STORAGE_DELAY, attempt_counts=False
    )


def failed(reason: EndReason, message: str, tail: str = "") -> Finalizer:
    """`tail`: the end of the trainer's output."""
    said = f"{message}\n{tail[-_MAX_MESSAGE:]}".strip()
    return failed_with(reason, ErrorInfo(code=reason, message=said, hint="See GET /jobs/{id}/logs."))


def refused(error: FrsError) -> Finalizer:
    reason = _end_reason(error.end_reason, EndReason.INTERNAL_ERROR)
    return failed_with(reason, ErrorInfo(code=error.code, message=error.message, hint=error.hint))


def failed_with(reason: EndReason, problem: ErrorInfo) -> Finalizer:
    """Failed, and never without a next step."""
    told = problem if problem.hint else problem.model_copy(update={"hint": "See GET /jobs/{id}/logs."})
    return partial(lifecycle.finish, status=JobStatus.FAILED, end_reason=reason, error=told)


def _by(outcome: Outcome) -> Finalizer:
    if outcome.status == "interrupted":
        return given_back(attempt_counts=False)
    if outcome.error and outcome.error.code == StorageFull.code:
        return waiting_for_storage(outcome.error.message)
    if outcome.status == "failed":
        problem = outcome.error or ErrorInfo(code="internal_error", message="The trainer failed without a reason.")
        return failed_with(_end_reason(outcome.end_reason, EndReason.INTERNAL_ERROR), problem)
    reason = _end_reason(outcome.end_reason, EndReason.COMPLETED)
    return partial(lifecycle.finish, status=JobStatus.SUCCEEDED, end_reason=reason)


def _end_reason(text: str | None, otherwise: EndReason) -> EndReason:
    return EndReason(text) if text in set(EndReason) else otherwise
