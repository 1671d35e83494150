"""Idempotency keys: one for each request, kept if the request receives no answer.

An equal request within a day, also of another process, has that key; the service then carries it out once.
"""

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from frs_client.errors import ApiError, NoAnswer, ServiceError

LIFETIME_SECONDS = 24 * 3600.0
"""Time for which the service keeps a key, and for which the key of an unanswered request is kept."""
SERVER_ERROR = 500
_UNANSWERED = (NoAnswer, KeyboardInterrupt, asyncio.CancelledError)


@contextmanager
def idempotency_key(request: str) -> Iterator[str]:
    """Yield the key of a request: that of an equal one which was not answered or met a server error, else a new one.

    `request` identifies the request: service, caller, path and body.
    """
    file = _folder() / hashlib.sha256(request.encode()).hexdigest()
    key = _read_recent(file) or secrets.token_hex(16)
    try:
        yield key
    except _UNANSWERED:
        _write(file, key)
        raise
    except ServiceError as error:
        if isinstance(error, ApiError) and error.status >= SERVER_ERROR:  # it may have been carried out
            _write(file, key)
        else:
            _remove(file)
        raise
    _remove(file)


def _folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "frs" / "unanswered"


def _read_recent(file: Path) -> str | None:
    try:
        is_recent = time.time() - file.stat().st_mtime < LIFETIME_SECONDS
        return file.read_text() if is_recent else None
    except OSError:
        return None


def _write(file: Path, key: str) -> None:
    with suppress(OSError):  # a home that is read-only: the next command has a key of its own
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_text(key)


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink(missing_ok=True)
