"""What lies on this worker's disks of what jobs need, as somebody looked up a short while ago."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from frs.errors import InvalidSpec
from frs.resolved import inside
from store.needs import Need, sha256_of
from store.settings import Settings
from store.states import WaitingReason
from store.tables import Document

LOOK_AGAIN_SECONDS = 30.0
TOLD_SECONDS = 600.0
"""Nobody hears of a fault any more that no job has asked about for so long."""
_MOST_TOLD = 100
_Version = tuple[int, int, int]


@dataclass
class _Look:
    fault: str | None
    at: float
    asked_at: float


class Stock:
    """Only one thread may use it."""

    def __init__(self, settings: Settings) -> None:
        self._roots = {WaitingReason.DATASET: settings.datasets_root, WaitingReason.WEIGHTS: settings.models_root}
        self._looks: dict[Need, _Look] = {}
        self._hashes: dict[Path, tuple[_Version, str]] = {}

    def lacks_any(self, needs: Iterable[Need]) -> bool:
        """Looks for all of them, to tell of all."""
        faults = [self._fault(need) for need in needs]
        return any(faults)

    def lacking(self) -> frozenset[str]:
        """Keys of what no job needs to ask for now: one has a moment ago."""
        recent = time.monotonic() - LOOK_AGAIN_SECONDS
        return frozenset(need.key for need, look in self._looks.items() if look.fault and look.asked_at > recent)

    def told(self) -> list[Document]:
        """For the worker's row: what is lacking still."""
        now = time.monotonic()
        self._looks = {need: look for need, look in self._looks.items() if look.asked_at > now - TOLD_SECONDS}
        faults = [(need, self._look(need).fault) for need, look in self._looks.items() if look.fault]
        return [{"key": need.key, "owner": need.owner, "message": fault} for need, fault in faults if fault][
            :_MOST_TOLD
        ]

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
        """The first thing that is wrong, as the end of a sentence that begins with the host."""
        where = "data sets'" if need.code is WaitingReason.DATASET else "models"
        for path in need.folders:
            if self._found(need, path, Path.is_dir) is None:
                return f"lacks the folder {path}{need.what} below its {where} folder."
        for path, sha256 in need.files:
            found = self._found(need, path, Path.is_file)
            if found is None:
                return f"lacks {path}{need.what} below its {where} folder."
            if sha256 is not None and self._hash(found) != sha256:
                return f"has another content in {path}{need.what} below its {where} folder than was registered."
        return None

    def _found(self, need: Need, relative: str, is_there: Callable[[Path], bool]) -> Path | None:
        try:
            path = inside(self._roots[need.code], relative)
            return path if is_there(path) else None
        except (InvalidSpec, OSError, RuntimeError):  # it leads outside, or in a circle
            return None

    def _hash(self, path: Path) -> str | None:
        """Computed once for each version of a file; None where it cannot be read."""
        try:
            facts = path.stat()
            version = (facts.st_size, facts.st_mtime_ns, facts.st_ino)
            known = self._hashes.get(path)
            if known is None or known[0] != version:
                known = self._hashes[path] = (version, sha256_of(path))
        except OSError:
            return None
        return known[1]
