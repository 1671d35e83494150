"""How an attempt ends, and what the store is to be told of it."""

import os
from collections.abc import Callable
from functools import partial

from sqlalchemy.orm import Session

from frs.errors import FrsError, StorageFull
from frs.events import Outcome, Problem
from store import jobs
from store.lease import Lease
from store.states import EndReason, JobStatus, WaitingReason

Ending = Callable[[Session, Lease], JobStatus]
STORAGE_DELAY = 30.0
_MAX_MESSAGE = 4000


def judge(outcome: Outcome | None, exit_code: int | None, tail: str) -> Ending:
    """The trainer's own word decides; without one, its exit code: killed goes back to the queue."""
    if outcome is not None:
        return _by(outcome)
    if exit_code == os.EX_TEMPFAIL:
        return given_back(attempt_counts=False)
    if exit_code is not None and exit_code < 0:
        return given_back(attempt_counts=True)
    how = "could not be started" if exit_code is None else f"ended with exit code {exit_code} and without an outcome"
    return failed(EndReason.INTERNAL_ERROR, f"The trainer {how}.", tail)


def cancelled() -> Ending:
    return partial(jobs.settle, status=JobStatus.CANCELLED, end_reason=EndReason.CANCELLED_BY_USER)


def hung(seconds: float, tail: str) -> Ending:
    return failed(EndReason.HUNG, f"The trainer said nothing for {seconds:g} seconds.", tail)


def given_back(*, attempt_counts: bool) -> Ending:
    return partial(jobs.requeue, attempt_counts=attempt_counts)


def waiting_for_storage(said: str) -> Ending:
    return partial(jobs.requeue, reason=WaitingReason.STORAGE, message=said, delay=STORAGE_DELAY, attempt_counts=False)


def failed(reason: EndReason, message: str, tail: str = "") -> Ending:
    """`tail`: the end of the trainer's output."""
    said = f"{message}\n{tail[-_MAX_MESSAGE:]}".strip()
    return settled(reason, Problem(code=reason, message=said, hint="See GET /jobs/{id}/logs."))


def refused(error: FrsError) -> Ending:
    reason = _end_reason(error.end_reason, EndReason.INTERNAL_ERROR)
    return settled(reason, Problem(code=error.code, message=error.message, hint=error.hint))


def settled(reason: EndReason, problem: Problem | None) -> Ending:
    return partial(jobs.settle, status=JobStatus.FAILED, end_reason=reason, error=problem)


def _by(outcome: Outcome) -> Ending:
    if outcome.status == "interrupted":
        return given_back(attempt_counts=False)
    if outcome.error and outcome.error.code == StorageFull.code:
        return waiting_for_storage(outcome.error.message)
    if outcome.status == "failed":
        problem = outcome.error or Problem(code="internal_error", message="The trainer failed without a reason.")
        return settled(_end_reason(outcome.end_reason, EndReason.INTERNAL_ERROR), problem)
    reason = _end_reason(outcome.end_reason, EndReason.COMPLETED)
    return partial(jobs.settle, status=JobStatus.SUCCEEDED, end_reason=reason)


def _end_reason(text: str | None, otherwise: EndReason) -> EndReason:
    return EndReason(text) if text in set(EndReason) else otherwise
