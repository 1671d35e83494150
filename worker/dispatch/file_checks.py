"""Checks of required files and folders on this worker's disks."""

from pathlib import Path
from stat import S_ISDIR, S_ISREG

import structlog

from frs import __version__
from frs.errors import InvalidSpec
from frs.files import digest
from frs.resolved import inside
from store.artifacts.free_space import describe_lack_of_space
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
        self._settings = settings
        self._hashes: dict[Path, tuple[_Version, str]] = {}

    def find_issue(self, requirement: Requirement) -> str | None:
        """Return the first issue as the end of a sentence that begins with the host's name; None if there is none.

        A slow disk may delay the result by minutes.
        """
        if requirement.reason is WaitingReason.SPEC:
            return f"runs version {__version__}, which cannot read a job's spec: {requirement.label}."
        if requirement.reason is WaitingReason.STORAGE:
            return self._find_lack_of_space()
        if requirement.published:
            return self._find_lack_of_published_file(requirement)
        root, folder_name = self._roots[requirement.reason]
        folders = [(path, None, "the folder ") for path in requirement.folders]
        for path, sha256, kind in [*folders, *((path, sha256, "") for path, sha256 in requirement.files)]:
            location = f"{path}{requirement.label} below its {folder_name} folder"
            try:
                file = inside(root, path)
                if not (S_ISDIR if kind else S_ISREG)(file.stat().st_mode):
                    return f"lacks {kind}{location}."
                if sha256 is not None and self._hash(file) != sha256:
                    return f"has other content in {location} than was registered."
            except (InvalidSpec, FileNotFoundError, NotADirectoryError):
                return f"lacks {kind}{location}."
            except Exception as error:  # the files of one job must not prevent the checks for the others
                _log.warning("A required file cannot be read.", path=path, error=_reason(error))
                return f"cannot read {kind}{location}: {_reason(error)}."
        return None

    def _find_lack_of_published_file(self, requirement: Requirement) -> str | None:
        names = " or ".join(published.file for published in requirement.published)
        try:
            if any(published.find(self._settings.models_root) for published in requirement.published):
                return None
        except Exception as error:  # likewise
            return f"cannot look for the ImageNet weights {names}: {_reason(error)}."
        return f"lacks the ImageNet weights {names}. {requirement.published[0].how_to_get}"

    def _find_lack_of_space(self) -> str | None:
        try:
            return describe_lack_of_space(self._settings)
        except Exception as error:  # an exception would end the thread that checks, and no job would start any more
            _log.warning("The free disk space cannot be read.", error=_reason(error))
            return f"cannot read its free disk space: {_reason(error)}."

    def _hash(self, path: Path) -> str:
        """Return the SHA-256 of the file, computed once for each version of it."""
        stat = path.stat()
        version = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        cached = self._hashes.get(path)
        if cached is None or cached[0] != version:
            cached = self._hashes[path] = (version, digest(path))
        return cached[1]


def _reason(error: Exception) -> str:
    """Return the operating system's text of the error, otherwise the name of its type."""
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
