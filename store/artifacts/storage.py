"""Storage of artifacts (checkpoints, deliverables, uploads), each under a key, in a folder or in object storage."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, Protocol

from store.artifacts.folder import ArtifactFolder
from store.artifacts.local_files import IsAbandoned
from store.artifacts.object_storage import ArtifactObjects
from store.errors import ArtifactsUnavailable
from store.settings import Settings

_log = logging.getLogger(__name__)


class Artifacts(Protocol):
    """Interface of an artifact storage.

    All methods raise InvalidKey for an invalid key, and ArtifactsUnavailable if object storage cannot be reached. They
    may take as long as the transfer of a file: never call them with an open database session.
    """

    def put(self, source: Path, key: str, sha256: str) -> None:
        """Store `source` under `key` atomically, replacing an earlier file; return when it is durable.

        Afterwards never write into `source`, but replace it: it may be hard-linked. Raises ArtifactCorrupt if its
        SHA-256 is not `sha256`; nothing has changed then.
        """

    def fetch(
        self, key: str, sha256: str, target: Path, is_abandoned: IsAbandoned = lambda: False, size: int | None = None
    ) -> None:
        """Create the file `target`, in an existing folder, with the content of `key`. Never write into it.

        Raises ArtifactNotFound; ArtifactCorrupt if a downloaded file has another size than `size` (if given) or
        another SHA-256; OSError (ENOSPC), before the download, if it does not fit on the disk; Abandoned if
        `is_abandoned` returns True.
        """

    def open(self, key: str) -> BinaryIO:
        """Open the file for reading; the stream is seekable. Raise ArtifactNotFound."""

    def delete(self, key: str) -> None:
        """Delete the file, if it exists."""

    def keep_only(self, folder: str, keys: Collection[str]) -> None:
        """Delete all files of the folder except `keys`: partly stored or unreferenced files of killed processes."""


def open_artifacts(settings: Settings) -> Artifacts:
    """Return the storage of `settings.artifacts_url`. Raise ValueError if the variables of S3 are invalid."""
    root = settings.artifacts_root
    return ArtifactObjects(settings.artifacts_url) if root is None else ArtifactFolder(root)


def delete_files(artifacts: Artifacts, *keys: str) -> None:
    """Delete files that no row refers to any more. Best effort: a file that cannot be deleted is logged and left."""
    for count, key in enumerate(keys):
        try:
            artifacts.delete(key)
        except ArtifactsUnavailable as error:  # the other files would time out as well
            _log.warning("%d files not deleted: %s", len(keys) - count, error.strerror, extra={"keys": keys[count:]})
            return
        except OSError as error:
            _log.warning("file not deleted: %s", error.strerror, extra={"key": key})
