"""What lies on this worker's disks of what jobs need, as somebody looked up a short while ago."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version

from store.needs import Need
from store.settings import Settings
from store.states import WaitingReason
from store.tables import Document
from worker.shelves import Shelves

LOOK_AGAIN_SECONDS = 30.0
TOLD_SECONDS = 600.0
"""Nobody hears of a fault any more that no job has asked about for so long."""
_MOST_TOLD = 100


@dataclass
class _Look:
    fault: str | None
    at: float
    asked_at: float


class Stock:
    """Only one thread may use it."""

    def __init__(self, settings: Settings) -> None:
        self._shelves = Shelves(settings)
        self._looks: dict[Need, _Look] = {}

    def lacks_any(self, needs: Iterable[Need]) -> bool:
        """Looks for all of them, to tell of all."""
        faults = [self._fault(need) for need in needs]
        return any(faults)

    def lacking(self) -> frozenset[str]:
        """Ids of data sets that no job needs to ask for now: one has a moment ago."""
        recent = time.monotonic() - LOOK_AGAIN_SECONDS
        asked = (need for need, look in self._looks.items() if look.fault and look.asked_at > recent)
        return frozenset(need.key for need in asked if need.code is WaitingReason.DATASET)

    def told(self) -> list[Document]:
        """For the worker's row: what is lacking still, files before what each of many jobs may be the reason of."""
        now = time.monotonic()
        self._looks = {need: look for need, look in self._looks.items() if look.asked_at > now - TOLD_SECONDS}
        lacking = sorted((need for need, look in self._looks.items() if look.fault), key=_is_of_one_job)
        faults = [(need, self._look(need).fault) for need in lacking]
        told = [{"key": need.key, "owner": need.owner, "message": fault} for need, fault in faults if fault]
        return told[:_MOST_TOLD]

    def _fault(self, need: Need) -> str | None:
        look = self._look(need)
        look.asked_at = time.monotonic()
        return look.fault

    def _look(self, need: Need) -> _Look:
        now = time.monotonic()
        look = self._looks.get(need)
        if look is None or look.at < now - LOOK_AGAIN_SECONDS:
            asked_at = look.asked_at if look else now
            look = self._looks[need] = _Look(self._look_for(need), now, asked_at)
        return look

    def _look_for(self, need: Need) -> str | None:
        if _is_of_one_job(need):
            return f"runs version {version('frs')}, which cannot read a job's spec: {need.what}."
        return self._shelves.fault(need)


def _is_of_one_job(need: Need) -> bool:
    return need.code is WaitingReason.SPEC
