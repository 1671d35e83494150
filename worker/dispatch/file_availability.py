"""Cached results of the file checks: which requirements this worker's disks meet."""

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from queue import Empty, SimpleQueue

from store.db.tables import Document
from store.scheduling.requirements import Requirement
from store.settings import Settings
from store.states import WaitingReason
from worker.dispatch.file_checks import FileChecks

RECHECK_SECONDS = 30.0
"""Time for which the result of a check is valid."""
RENEW_SECONDS = 15.0
"""Age from which a request for a result starts a new check, so that the new result is there before the old expires."""
REPORT_SECONDS = 600.0
"""Time after the last request for a requirement until its issue is no longer reported."""
_MAX_REPORTED = 100


@dataclass
class _CheckState:
    requested_at: float
    issue: str | None = None
    checked_at: float = -math.inf
    is_running: bool = False

    @property
    def is_valid(self) -> bool:
        return self.checked_at > time.monotonic() - RECHECK_SECONDS


class FileAvailability:
    """The state of every requirement that was requested lately.

    Only the dispatcher's thread may use it. It owns a daemon thread that reads the disks, because a disk may take
    minutes or hang; no method waits for it. Raises nothing.
    """

    def __init__(self, settings: Settings, on_result: Callable[[], None] = lambda: None) -> None:
        """`on_result` is called by the checking thread after every check."""
        self._file_checks, self._on_result = FileChecks(settings), on_result
        self._states: dict[Requirement, _CheckState] = {}
        self._requests: SimpleQueue[Requirement | None] = SimpleQueue()
        self._results: SimpleQueue[tuple[Requirement, str | None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._run_checks, name="file-checks", daemon=True)

    def close(self) -> None:
        """End the checking thread after the checks that are queued."""
        self._requests.put(None)

    def misses_any(self, requirements: Iterable[Requirement]) -> bool | None:
        """Request a check of every requirement and return whether any is missing; None if that is not known yet."""
        self._collect_results()
        states = [self._request(requirement) for requirement in requirements]
        if any(state.issue and state.is_valid for state in states):
            return True
        return False if all(state.is_valid for state in states) else None

    def missing_datasets(self) -> frozenset[str]:
        """Return the ids of data sets that were requested a moment ago and are not known to be available.

        Jobs that train on them need not request them again for now.
        """
        self._collect_results()
        recent = time.monotonic() - RECHECK_SECONDS
        requested = {key: state for key, state in self._states.items() if state.requested_at > recent}
        missing = (key for key, state in requested.items() if state.issue or not state.is_valid)
        return frozenset(requirement.key for requirement in missing if requirement.reason is WaitingReason.DATASET)

    def report(self) -> list[Document]:
        """Return `{key, owner, message}` of the missing requirements, for the worker's row.

        Files come first: each may delay many jobs, an unreadable spec delays only its own.
        """
        self._collect_results()
        now = time.monotonic()
        self._states = {key: state for key, state in self._states.items() if state.requested_at > now - REPORT_SECONDS}
        missing = sorted((key for key, state in self._states.items() if state.issue), key=_is_unreadable_spec)
        issues = [(requirement, self._refreshed(requirement).issue) for requirement in missing]
        return [
            {"key": requirement.key, "owner": requirement.owner, "message": issue}
            for requirement, issue in issues[:_MAX_REPORTED]
        ]

    def _request(self, requirement: Requirement) -> _CheckState:
        state = self._refreshed(requirement)
        state.requested_at = time.monotonic()
        return state

    def _refreshed(self, requirement: Requirement) -> _CheckState:
        """Return the state of the requirement; queue a check if the state is about to expire."""
        now = time.monotonic()
        state = self._states.setdefault(requirement, _CheckState(requested_at=now))
        if _is_unreadable_spec(requirement):
            state.issue = f"runs version {version('frs')}, which cannot read a job's spec: {requirement.label}."
            state.checked_at = now
        elif not state.is_running and state.checked_at <= now - min(RENEW_SECONDS, RECHECK_SECONDS):
            state.is_running = True
            self._queue_check(requirement)
        return state

    def _queue_check(self, requirement: Requirement) -> None:
        if self._thread.ident is None:
            self._thread.start()
        self._requests.put(requirement)

    def _collect_results(self) -> None:
        try:
            while True:
                requirement, issue = self._results.get_nowait()
                if state := self._states.get(requirement):
                    state.issue, state.checked_at, state.is_running = issue, time.monotonic(), False
        except Empty:
            return

    def _run_checks(self) -> None:
        while (requirement := self._requests.get()) is not None:
            self._results.put((requirement, self._file_checks.find_issue(requirement)))
            self._on_result()


def _is_unreadable_spec(requirement: Requirement) -> bool:
    return requirement.reason is WaitingReason.SPEC
