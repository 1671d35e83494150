"""Checks of required files and folders on this worker's disks."""

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
    """Checks requirements against the disks and caches the hashes of files. One thread may use it; raises nothing."""

    def __init__(self, settings: Settings) -> None:
        self._roots = {
            WaitingReason.DATASET: (settings.datasets_root, "data sets'"),
            WaitingReason.WEIGHTS: (settings.models_root, "models"),
        }
        self._hashes: dict[Path, tuple[_Version, str]] = {}
        self._logged: set[str] = set()

    def find_issue(self, requirement: Requirement) -> str | None:
        """Return the first issue as the end of a sentence that begins with the host's name; None if there is none.

        A slow disk may delay the result by minutes.
        """
        root, folder_name = self._roots[requirement.reason]
        for prefix, path, sha256 in _entries(requirement):
            location = f"{path}{requirement.label} below its {folder_name} folder"
            try:
                file = inside(root, path)
                if not _exists(file, is_folder=bool(prefix)):
                    return f"lacks {prefix}{location}."
                if sha256 is not None and self._hash(file) != sha256:
                    return f"has other content in {location} than was registered."
            except InvalidSpec:
                return f"lacks {prefix}{location}."
            except Exception as error:  # the files of one job must not prevent the checks for the others
                reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
                return self._logged_once(f"cannot read {prefix}{location}: {reason}.")
        return None

    def _hash(self, path: Path) -> str:
        """Return the SHA-256 of the file, computed once for each version of it."""
        stat = path.stat()
        version = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        cached = self._hashes.get(path)
        if cached is None or cached[0] != version:
            cached = self._hashes[path] = (version, digest(path))
        return cached[1]

    def _logged_once(self, issue: str) -> str:
        if issue not in self._logged:
            self._logged.add(issue)
            _log.warning("A required file cannot be read.", issue=issue)
        return issue


def _entries(requirement: Requirement) -> Iterator[tuple[str, str, str | None]]:
    """Yield the text before the path in messages (empty for a file), the path, and the SHA-256 if known."""
    yield from (("the folder ", path, None) for path in requirement.folders)
    yield from (("", path, sha256) for path, sha256 in requirement.files)


def _exists(path: Path, is_folder: bool) -> bool:
    """Return whether the path is a folder, or a regular file. Raises OSError if that cannot be determined."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return S_ISDIR(mode) if is_folder else S_ISREG(mode)
