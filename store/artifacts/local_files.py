"""A folder that processes of one machine share: names for what is not finished, and one at a time at what others look at."""

import fcntl
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

IsAbandoned = Callable[[], bool]
"""Asked again and again while something is waited for."""
_PART = ".part"
_STALE_SECONDS = 86_400
_TICK = 0.1


class Abandoned(Exception):
    """Nobody wants any more what was waited for."""


@contextmanager
def temporary(root: Path) -> Iterator[Path]:
    """A name below `root` for a file or a folder that is gone afterwards."""
    root.mkdir(parents=True, exist_ok=True)
    part = root / f".{secrets.token_hex(8)}{_PART}"
    try:
        yield part
    finally:
        discard(part)


def discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def exclusive_lock(root: Path, lock: str = ".lock", give_up: IsAbandoned | None = None) -> Iterator[None]:
    """No other thread or process of this machine is in here: between what is on the disk and what rows say of it.

    Raises Abandoned.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / lock).open("w") as file:
        if give_up is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            _wait_for(file, give_up)
        yield


def remove_stale(root: Path) -> None:
    """Removes what processes left that were killed in the middle."""
    if root.is_dir():
        stale = filesystem_time(root) - _STALE_SECONDS
        for path in root.iterdir():
            if path.name.endswith(_PART) and path.lstat().st_mtime < stale:
                discard(path)


def filesystem_time(root: Path) -> float:
    """What time it is for files there, which may be another machine's."""
    with temporary(root) as probe:
        probe.touch()
        return probe.lstat().st_mtime


def _wait_for(file: TextIO, give_up: IsAbandoned) -> None:
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if give_up():
                raise Abandoned from None
            time.sleep(_TICK)
