"""Artifacts in a folder. A file is there whole or not at all: put under a temporary name, synced, verified, renamed."""

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

_COPIED_AT_ONCE = 8 << 20


class ArtifactFolder:
    """As `store.artifacts.storage.Artifacts` says; hard-linked where the file system allows it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @cached_property
    def root(self) -> Path:
        return self._root.resolve()

    def put(self, source: Path, key: str, sha256: str) -> None:
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
        self, key: str, sha256: str, target: Path, give_up: IsAbandoned = lambda: False, size: int | None = None
    ) -> None:
        """Trusts the disk: a link costs nothing, and the trainer hashes what it reads."""
        _link_or_copy(self.path(key), target, give_up)

    def path(self, key: str) -> Path:
        """Raises ArtifactNotFound."""
        path = self._locate(key)
        if not path.is_file():
            raise ArtifactNotFound(f"No artifact {key!r}.")
        return path

    def open(self, key: str) -> BinaryIO:
        return self.path(key).open("rb")

    def delete(self, key: str) -> None:
        self._locate(key)
        self._delete(key)

    def keep_only(self, folder: str, keys: Collection[str]) -> None:
        for path in self._locate(f"{folder}/any").parent.rglob("*"):
            key = path.relative_to(self.root).as_posix()
            if key not in keys and not path.is_dir():
                self._delete(key)

    def _delete(self, name: str) -> None:
        """Really, or out of sight while a backup is made. Half put files have no key, and such names, too."""
        with suppress(FileNotFoundError):  # as mostly: no backup is made
            move_to_trash(self.root, name)
        (self.root / name).unlink(missing_ok=True)

    def _locate(self, key: str) -> Path:
        artifact_keys.check(key)
        path = self.root / key
        if path.resolve() != path:
            raise InvalidKey("An artifact's key leads through no link.")
        return path


def _make_folder(folder: Path) -> None:
    """Like `mkdir -p`, and the folders are still there after a power cut."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def _link_or_copy(source: Path, target: Path, give_up: IsAbandoned = lambda: False) -> None:
    """Raises Abandoned; then, as after any error, there is no target."""
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without hard links
        _copy(source, target, give_up)


def _copy(source: Path, target: Path, give_up: IsAbandoned) -> None:
    try:
        with source.open("rb") as file, target.open("wb") as copy:
            while content := file.read(_COPIED_AT_ONCE):
                if give_up():
                    raise Abandoned
                copy.write(content)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _verify(path: Path, sha256: str) -> None:
    if (found := digest(path)) != sha256:
        raise ArtifactCorrupt(f"The file hashes to {found[:12]}..., announced was {sha256[:12]}...")
