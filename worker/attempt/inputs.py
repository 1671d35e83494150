"""Artifacts that a trainer is to read: asked for while the database is read, fetched once it is left alone."""

from pathlib import Path

from frs.errors import FrsError
from store.artifacts.local_files import IsAbandoned
from store.artifacts.storage import Artifacts
from store.errors import ArtifactNotFound

INPUTS_FOLDER = "inputs"


class AttemptInputs:
    def __init__(self, folder: Path) -> None:
        """`folder`: the attempt's; they lie in one folder below it, each under its key."""
        self._folder = folder / INPUTS_FOLDER
        self._wanted: dict[str, tuple[str, FrsError, int | None]] = {}

    def want(self, key: str, sha256: str, gone: FrsError, size: int | None = None) -> Path:
        """Where it will lie. `gone` is raised later where there is no such artifact; `size`: where it is known."""
        self._wanted[key] = sha256, gone, size
        return self._folder / key

    def fetch(self, artifacts: Artifacts, give_up: IsAbandoned) -> None:
        """Raises what `want` was told, ArtifactCorrupt, ArtifactsUnavailable, GivenUp."""
        for key, (sha256, gone, size) in self._wanted.items():
            path = self._folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                artifacts.fetch(key, sha256, path, give_up, size)
            except ArtifactNotFound:
                raise gone from None
