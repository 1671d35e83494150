"""What is wrong with the files and folders below this worker's roots that jobs need, as a look at the disk tells now."""

from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG

import structlog

from frs.errors import InvalidSpec
from frs.files import digest
from frs.resolved import inside
from store.scheduling.requirements import Requirement
from store.settings import Settings
from store.states import WaitingReason

_Version = tuple[int, int, int]
_log = structlog.get_logger()


class FileChecks:
    """Only one thread may use it."""

    def __init__(self, settings: Settings) -> None:
        self._roots = {
            WaitingReason.DATASET: (settings.datasets_root, "data sets'"),
            WaitingReason.WEIGHTS: (settings.models_root, "models"),
        }
        self._hashes: dict[Path, tuple[_Version, str]] = {}
        self._logged: set[str] = set()

    def fault(self, need: Requirement) -> str | None:
        """The first thing that is wrong, as the end of a sentence that begins with the host. May take minutes."""
        root, name = self._roots[need.code]
        for thing, path, sha256 in _things(need):
            where = f"{path}{need.what} below its {name} folder"
            try:
                found = inside(root, path)
                if not _is_there(found, is_folder=bool(thing)):
                    return f"lacks {thing}{where}."
                if sha256 is not None and self._hash(found) != sha256:
                    return f"has another content in {where} than was registered."
            except InvalidSpec:
                return f"lacks {thing}{where}."
            except Exception as error:  # whatever one job's files do, the others' are looked at
                reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
                return self._logged_once(f"cannot read {thing}{where}: {reason}.")
        return None

    def _hash(self, path: Path) -> str:
        """Computed once for each version of a file."""
        facts = path.stat()
        version = (facts.st_size, facts.st_mtime_ns, facts.st_ino)
        known = self._hashes.get(path)
        if known is None or known[0] != version:
            known = self._hashes[path] = (version, digest(path))
        return known[1]

    def _logged_once(self, fault: str) -> str:
        if fault not in self._logged:
            self._logged.add(fault)
            _log.warning("not to be read", said=fault)
        return fault


def _things(need: Requirement) -> Iterator[tuple[str, str, str | None]]:
    """What it is called in words if it is a folder, its path, its hash."""
    yield from (("the folder ", path, None) for path in need.folders)
    yield from (("", path, sha256) for path, sha256 in need.files)


def _is_there(path: Path, is_folder: bool) -> bool:
    """Raises OSError where that cannot be said."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return S_ISDIR(mode) if is_folder else S_ISREG(mode)
