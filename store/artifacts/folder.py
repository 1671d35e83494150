"""Artifacts in a folder.

Writes are atomic: a file is written under a temporary name, synced, verified and renamed.
"""

import secrets
from collections.abc import Collection
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from frs.files import digest, sync
from store.artifacts import keys as artifact_keys
from store.artifacts.backup import move_to_trash
from store.artifacts.local_files import Abandoned, IsAbandoned
from store.errors import ArtifactCorrupt, ArtifactNotFound, InvalidKey

_COPY_BYTES = 8 << 20


class ArtifactFolder:
    """`store.artifacts.storage.Artifacts` in a folder; files are hard-linked if the file system supports it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @cached_property
    def root(self) -> Path:
        """The folder, with symbolic links resolved."""
        return self._root.resolve()

    def put(self, source: Path, key: str, sha256: str) -> None:
        """Store `source` under `key`; see `Artifacts.put`."""
        path = self._locate(key)
        _make_folder(path.parent)
        part = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            _link_or_copy(source, part)
            sync(part)
            _verify(part, sha256)
            part.replace(path)
            sync(path.parent)
        finally:
            part.unlink(missing_ok=True)

    def fetch(
        self, key: str, sha256: str, target: Path, is_abandoned: IsAbandoned = lambda: False, size: int | None = None
    ) -> None:
        """Link or copy the file to `target`; see `Artifacts.fetch`.

        The hash is not checked here: the trainer hashes the files that it reads.
        """
        _link_or_copy(self.path(key), target, is_abandoned)

    def path(self, key: str) -> Path:
        """Return the path of the file. Raise ArtifactNotFound."""
        path = self._locate(key)
        if not path.is_file():
            raise ArtifactNotFound(f"No artifact {key!r}.")
        return path

    def open(self, key: str) -> BinaryIO:
        """Open the file for reading; see `Artifacts.open`."""
        return self.path(key).open("rb")

    def delete(self, key: str) -> None:
        """Delete the file; see `Artifacts.delete`."""
        self._locate(key)
        self._delete(key)

    def keep_only(self, folder: str, keys: Collection[str]) -> None:
        """Delete all other files of the folder; see `Artifacts.keep_only`."""
        for path in self._locate(f"{folder}/any").parent.rglob("*"):
            key = path.relative_to(self.root).as_posix()
            if key not in keys and not path.is_dir():
                self._delete(key)

    def _delete(self, name: str) -> None:
        """Delete the file, or move it to the trash during a backup; `name` may be that of a partly written file."""
        with suppress(FileNotFoundError):  # usually: no backup is running
            move_to_trash(self.root, name)
        (self.root / name).unlink(missing_ok=True)

    def _locate(self, key: str) -> Path:
        artifact_keys.check(key)
        path = self.root / key
        if path.resolve() != path:
            raise InvalidKey("The path of an artifact must not contain symbolic links.")
        return path


def _make_folder(folder: Path) -> None:
    """Create the folder like `mkdir -p`, and sync its parents so that it survives a power cut."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def _link_or_copy(source: Path, target: Path, is_abandoned: IsAbandoned = lambda: False) -> None:
    """Make `target` a hard link to `source`, or a copy. Raise Abandoned. After an error there is no target."""
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without hard links
        _copy(source, target, is_abandoned)


def _copy(source: Path, target: Path, is_abandoned: IsAbandoned) -> None:
    try:
        with source.open("rb") as file, target.open("wb") as copy:
            while content := file.read(_COPY_BYTES):
                if is_abandoned():
                    raise Abandoned
                copy.write(content)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _verify(path: Path, sha256: str) -> None:
    if (actual := digest(path)) != sha256:
        raise ArtifactCorrupt(f"The SHA-256 of the file is {actual[:12]}..., expected {sha256[:12]}...")
