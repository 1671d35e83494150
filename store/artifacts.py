"""Files that outlive an attempt: checkpoints and deliverables, in one folder, each under its key.

A file is there whole or not at all: put under a temporary name, synced, verified, renamed.
"""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from store.errors import ArtifactCorrupt, ArtifactNotFound, InvalidKey

_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_KEY = re.compile(rf"{_NAME}(/{_NAME})+")


class Artifacts:
    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def put(self, source: Path, key: str, sha256: str) -> None:
        """Keeps `source` under `key`, replacing what was there; hard-linked where the file system allows it.

        So never write into `source` afterwards; replace it. Raises ArtifactCorrupt if the bytes kept do not hash to
        `sha256`, and then nothing has changed.
        """
        path = self._locate(key)
        _make_folder(path.parent)
        part = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            _link_or_copy(source, part)
            _verify(part, sha256)
            part.replace(path)
            _sync(path.parent)
        finally:
            part.unlink(missing_ok=True)

    def path(self, key: str) -> Path:
        """Raises ArtifactNotFound."""
        path = self._locate(key)
        if not path.is_file():
            raise ArtifactNotFound(f"No artifact {key!r}.")
        return path

    def open(self, key: str) -> BinaryIO:
        """Raises ArtifactNotFound."""
        return self.path(key).open("rb")

    def delete(self, key: str) -> None:
        """What is not there need not be deleted."""
        self._locate(key).unlink(missing_ok=True)

    def keep_only(self, folder: str, keys: Collection[str]) -> None:
        """Deletes what else is in that folder: files of killed processes, half put or put and never told of."""
        for path in self._locate(f"{folder}/any").parent.rglob("*"):
            if path.relative_to(self.root).as_posix() not in keys and not path.is_dir():
                path.unlink(missing_ok=True)

    def _locate(self, key: str) -> Path:
        path = self.root / key
        if not _KEY.fullmatch(key) or path.resolve() != path:
            raise InvalidKey("An artifact's key is folders and a name, without dots in front, links or spaces.")
        return path


def _make_folder(folder: Path) -> None:
    """Like `mkdir -p`, and the folders are still there after a power cut."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
    _sync(target)


def _verify(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ArtifactCorrupt(f"The file hashes to {found[:12]}..., announced was {sha256[:12]}...")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
