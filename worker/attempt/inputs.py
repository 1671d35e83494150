"""Artifacts that a trainer reads: listed while a database session is open, fetched after it is closed."""

from pathlib import Path

from frs.errors import FrsError
from store.artifacts.local_files import IsAbandoned
from store.artifacts.storage import Artifacts
from store.errors import ArtifactNotFound

INPUTS_FOLDER = "inputs"
"""Name of the folder of fetched artifacts in an attempt's work folder."""


class AttemptInputs:
    """The list of artifacts to fetch into one folder of an attempt. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the attempt's work folder; the artifacts are fetched into a folder in it, each under its key."""
        self._folder = folder / INPUTS_FOLDER
        self._entries: dict[str, tuple[str, FrsError, int | None]] = {}

    def add(self, key: str, sha256: str, missing_error: FrsError, size: int | None = None) -> Path:
        """List an artifact and return the path that it will have.

        `fetch` raises `missing_error` if the artifact does not exist. `size` is in bytes, if known.
        """
        self._entries[key] = sha256, missing_error, size
        return self._folder / key

    def fetch(self, artifacts: Artifacts, is_abandoned: IsAbandoned) -> None:
        """Fetch all listed artifacts.

        Raises the `missing_error` of an artifact that does not exist, ArtifactCorrupt, ArtifactsUnavailable, Abandoned.
        """
        for key, (sha256, missing_error, size) in self._entries.items():
            path = self._folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                artifacts.fetch(key, sha256, path, is_abandoned, size)
            except ArtifactNotFound:
                raise missing_error from None
