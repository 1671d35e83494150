"""A folder shared by the processes of one machine: temporary names and an exclusive lock."""

import fcntl
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

IsAbandoned = Callable[[], bool]
"""Polled during a wait; True if the result is no longer needed."""
_PART = ".part"
STALE_SECONDS = 2400
"""Age of the last change from which a temporary file has no process any more: an upload ends after 60 s of silence."""
_POLL_SECONDS = 0.1


class Abandoned(Exception):
    """The result is no longer needed: `IsAbandoned` returned True."""


@contextmanager
def temporary_path(root: Path) -> Iterator[Path]:
    """Yield an unused path below `root` for a file or a folder, which is deleted at the end."""
    root.mkdir(parents=True, exist_ok=True)
    part = root / f".{secrets.token_hex(8)}{_PART}"
    try:
        yield part
    finally:
        discard(part)


def discard(path: Path) -> None:
    """Delete the file or folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def exclusive_lock(root: Path, lock: str = ".lock", is_abandoned: IsAbandoned | None = None) -> Iterator[None]:
    """Hold the lock of the folder against all other threads and processes of this machine.

    It keeps the files on the disk and the rows that refer to them consistent. Raises Abandoned.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / lock).open("w") as file:
        if is_abandoned is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            _poll_lock(file, is_abandoned)
        yield


def remove_stale(root: Path) -> None:
    """Delete temporary files and folders without a change for `STALE_SECONDS`, which killed processes left behind."""
    if root.is_dir():
        stale = filesystem_time(root) - STALE_SECONDS
        for path in root.iterdir():
            if path.name.endswith(_PART) and not _has_changed_since(stale, path):
                discard(path)


def _has_changed_since(stale: float, path: Path) -> bool:
    """Return whether the file, or a file or folder in it, was changed after `stale`, or is gone already."""
    try:
        return any(entry.lstat().st_mtime >= stale for entry in (path, *path.rglob("*")))
    except FileNotFoundError:
        return True


def filesystem_time(root: Path) -> float:
    """Return the time of the file system of `root`, which may be on another machine, in seconds since 1970 UTC."""
    with temporary_path(root) as probe:
        probe.touch()
        return probe.lstat().st_mtime


def _poll_lock(file: TextIO, is_abandoned: IsAbandoned) -> None:
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if is_abandoned():
                raise Abandoned from None
            time.sleep(_POLL_SECONDS)
