"""Which requirements this worker's disks meet. One thread checks them, because a disk may take minutes or hang."""

import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from store.db.tables import Document
from store.scheduling.requirements import Requirement
from store.settings import Settings
from store.states import WaitingReason
from worker.dispatch.file_checks import FileChecks

RECHECK_SECONDS = 30.0
"""Time for which the result of a check is valid."""
RENEW_SECONDS = 15.0
"""Age from which a check is repeated, so that the new result is there before the old one expires."""
REPORT_SECONDS = 600.0
"""Time after the last query for a requirement until it is no longer checked and its issue no longer reported."""
MAX_REPORTED = 100


class _Result(NamedTuple):
    issue: str | None = None
    checked_at: float = -math.inf


class FileAvailability:
    """The state of every requirement that was queried lately.

    The methods are for the dispatcher's thread, which alone writes `_queried_at`; they never wait for a disk and raise
    nothing. The checking thread, a daemon, alone writes `_results`.
    """

    def __init__(self, settings: Settings, on_change: Callable[[], None] = lambda: None) -> None:
        """`on_change` is called by the checking thread when the state of a requirement has changed."""
        self._file_checks, self._on_change = FileChecks(settings), on_change
        self._queried_at: dict[Requirement, float] = {}
        self._results: dict[Requirement, _Result] = {}
        self._due, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="file-checks", daemon=True)

    def close(self) -> None:
        """End the checking thread after its current check."""
        self._closed.set()
        self._due.set()

    def unmet(self, requirements: Iterable[Requirement]) -> list[Requirement]:
        """Return the requirements that are not met or not checked yet; from now on all are checked periodically."""
        now, unmet = time.monotonic(), []
        for requirement in requirements:
            result = self._results.get(requirement, _Result())
            if result.issue or result.checked_at <= now - RECHECK_SECONDS:
                unmet.append(requirement)
            if requirement not in self._queried_at:
                self._due.set()
            self._queried_at[requirement] = now
        if unmet and self._thread.ident is None:
            self._thread.start()
        return unmet

    def has_unchecked(self) -> bool:
        """Return whether a requirement was queried that has not been checked yet."""
        return any(requirement not in self._results for requirement in self._queried_at)

    def report(self) -> list[Document]:
        """Return `{key, owner, message}` of each requirement that is not met; unreadable specs are last."""
        oldest = time.monotonic() - REPORT_SECONDS
        self._queried_at = {requirement: at for requirement, at in self._queried_at.items() if at > oldest}
        results = [(requirement, self._results.get(requirement)) for requirement in self._queried_at]
        issues = [(requirement, result.issue) for requirement, result in results if result and result.issue]
        issues.sort(key=lambda entry: entry[0].reason is WaitingReason.SPEC)
        return [{"key": item.key, "owner": item.owner, "message": issue} for item, issue in issues[:MAX_REPORTED]]

    def _run(self) -> None:
        while not self._closed.is_set():
            self._due.wait(RENEW_SECONDS / 10)
            self._due.clear()
            for requirement in self._due_requirements():
                self._check(requirement)

    def _due_requirements(self) -> list[Requirement]:
        """Return the requirements without a recent result, those never checked first; forget unused results."""
        checked_at = {item: self._results.get(item, _Result()).checked_at for item in self._queried_at.copy()}
        self._results = {item: result for item, result in self._results.items() if item in checked_at}
        due = [item for item, at in checked_at.items() if at <= time.monotonic() - RENEW_SECONDS]
        return sorted(due, key=checked_at.__getitem__)

    def _check(self, requirement: Requirement) -> None:
        earlier = self._results.get(requirement)
        issue = self._file_checks.find_issue(requirement)
        self._results[requirement] = _Result(issue, time.monotonic())
        if earlier is None or earlier.issue != issue:
            self._on_change()
