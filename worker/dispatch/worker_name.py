"""The name of a worker. It survives a restart of the process or container, unlike host name and process id."""

import fcntl
import itertools
import os
import secrets

from store.settings import Settings

_taken: list[int] = []
"""Descriptors of the locked name files; a lock lasts as long as this process."""


def take_name(settings: Settings) -> str:
    """Return `FRS_WORKER_NAME` or, without it, the first name in the data folder that no living worker has.

    Each name is the content of a file that its worker locks. The kernel releases the lock when the process ends, so the
    next worker with this data folder takes the name over. Raises OSError if the folder cannot be written.
    """
    if settings.worker_name:
        return settings.worker_name
    folder = settings.data / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        descriptor = os.open(folder / f"{number}.name", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        _taken.append(descriptor)
        return _read_or_create(descriptor)
    raise AssertionError("unreachable")


def _read_or_create(descriptor: int) -> str:
    name = os.pread(descriptor, 100, 0).decode(errors="replace").strip()
    if not name:
        name = f"worker-{secrets.token_hex(3)}"
        os.pwrite(descriptor, f"{name}\n".encode(), 0)
        os.fsync(descriptor)
    return name
