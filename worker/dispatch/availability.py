"""What lies on this worker's disks of what jobs need, as somebody looked up a short while ago."""

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
"""So long a finding holds."""
RENEW_SECONDS = 15.0
"""From then on whoever asks has it looked up anew, so that there is a new one when it no longer holds."""
REPORT_SECONDS = 600.0
"""Nobody hears of a fault any more that no job has asked about for so long."""
_MAX_REPORTED = 100


@dataclass
class _CheckState:
    asked_at: float
    fault: str | None = None
    at: float = -math.inf
    is_under_way: bool = False

    @property
    def holds(self) -> bool:
        return self.at > time.monotonic() - RECHECK_SECONDS


class Availability:
    """Only one thread may use it. Another one looks, for a disk may take minutes, or for ever: nobody waits for it."""

    def __init__(self, settings: Settings, tell: Callable[[], None] = lambda: None) -> None:
        """`tell` is called, by that thread, when something has been found out."""
        self._file_checks, self._tell = FileChecks(settings), tell
        self._looks: dict[Requirement, _CheckState] = {}
        self._wanted: SimpleQueue[Requirement | None] = SimpleQueue()
        self._found: SimpleQueue[tuple[Requirement, str | None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._look_on, name="looking", daemon=True)

    def close(self) -> None:
        """No more looks, but for the one under way."""
        self._wanted.put(None)

    def misses_any(self, needs: Iterable[Requirement]) -> bool | None:
        """Asks for all of them, to tell of all. None: that is not known yet."""
        self._take_in()
        looks = [self._asked(need) for need in needs]
        if any(look.fault and look.holds for look in looks):
            return True
        return False if all(look.holds for look in looks) else None

    def lacking(self) -> frozenset[str]:
        """Ids of data sets that no job needs to ask for now: one has a moment ago, and they are not known to be here."""
        self._take_in()
        recent = time.monotonic() - RECHECK_SECONDS
        asked = {need: look for need, look in self._looks.items() if look.asked_at > recent}
        missing = (need for need, look in asked.items() if look.fault or not look.holds)
        return frozenset(need.key for need in missing if need.code is WaitingReason.DATASET)

    def told(self) -> list[Document]:
        """For the worker's row: what is lacking still, files before what each of many jobs may be the reason of."""
        self._take_in()
        now = time.monotonic()
        self._looks = {need: look for need, look in self._looks.items() if look.asked_at > now - REPORT_SECONDS}
        lacking = sorted((need for need, look in self._looks.items() if look.fault), key=_is_of_one_job)
        faults = [(need, self._current(need).fault) for need in lacking]
        return [{"key": need.key, "owner": need.owner, "message": fault} for need, fault in faults[:_MAX_REPORTED]]

    def _asked(self, need: Requirement) -> _CheckState:
        look = self._current(need)
        look.asked_at = time.monotonic()
        return look

    def _current(self, need: Requirement) -> _CheckState:
        now = time.monotonic()
        look = self._looks.setdefault(need, _CheckState(asked_at=now))
        if _is_of_one_job(need):
            look.fault, look.at = f"runs version {version('frs')}, which cannot read a job's spec: {need.what}.", now
        elif not look.is_under_way and look.at <= now - min(RENEW_SECONDS, RECHECK_SECONDS):
            look.is_under_way = True
            self._want(need)
        return look

    def _want(self, need: Requirement) -> None:
        if self._thread.ident is None:
            self._thread.start()
        self._wanted.put(need)

    def _take_in(self) -> None:
        try:
            while True:
                need, fault = self._found.get_nowait()
                if look := self._looks.get(need):
                    look.fault, look.at, look.is_under_way = fault, time.monotonic(), False
        except Empty:
            return

    def _look_on(self) -> None:
        while (need := self._wanted.get()) is not None:
            self._found.put((need, self._file_checks.fault(need)))
            self._tell()


def _is_of_one_job(need: Requirement) -> bool:
    return need.code is WaitingReason.SPEC
