"""Files that outlive an attempt: checkpoints and deliverables, each under its key, in a folder or in object storage."""

from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, Protocol

from store.artifacts.folder import ArtifactFolder
from store.artifacts.local_files import IsAbandoned
from store.artifacts.object_storage import ArtifactObjects
from store.settings import Settings


class Artifacts(Protocol):
    """Raises InvalidKey for what is no key, ArtifactsUnavailable where they lie elsewhere and cannot be reached.

    May take as long as a file takes to travel: never call it with a database session open.
    """

    def put(self, source: Path, key: str, sha256: str) -> None:
        """Keeps `source` under `key`, whole or not at all, replacing what was there; returns when it is safe.

        Never write into `source` afterwards; replace it. Raises ArtifactCorrupt if its bytes do not hash to `sha256`,
        and then nothing has changed.
        """

    def fetch(
        self, key: str, sha256: str, target: Path, give_up: IsAbandoned = lambda: False, size: int | None = None
    ) -> None:
        """Makes `target`, whose folder is there, a file with that content, to be read only. `size`: where it is known.

        Raises ArtifactNotFound, ArtifactCorrupt where what came over a network has another size or does not hash to
        `sha256`, OSError: ENOSPC for what has no capacity, before it comes, GivenUp.
        """

    def open(self, key: str) -> BinaryIO:
        """Seekable. Raises ArtifactNotFound."""

    def delete(self, key: str) -> None:
        """What is not there need not be deleted."""

    def keep_only(self, folder: str, keys: Collection[str]) -> None:
        """Deletes what else is in that folder: files of killed processes, half put or put and never told of."""


def open_artifacts(settings: Settings) -> Artifacts:
    """Raises ValueError for an address that is none."""
    root = settings.artifacts_root
    return ArtifactObjects(settings.artifacts_url) if root is None else ArtifactFolder(root)
