"""Idempotency keys: one for each command, kept if the command receives no answer.

The same command again, within a day, continues under that key; the service then carries the request out once.
"""

import hashlib
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from cli.errors import NoAnswer, ServiceError

LIFETIME_SECONDS = 24 * 3600.0


@contextmanager
def idempotency_key(request: str) -> Iterator[str]:
    """Yield the key of a request: the one of the same request that was not answered, otherwise a new one.

    `request` identifies the request: service, caller, path and body.
    """
    file = _folder() / hashlib.sha256(request.encode()).hexdigest()
    key = _read_recent(file) or secrets.token_hex(16)
    try:
        yield key
    except (NoAnswer, KeyboardInterrupt):
        _write(file, key)
        raise
    except ServiceError:
        _remove(file)
        raise
    _remove(file)


def _folder() -> Path:
    return Path(typer.get_app_dir("frs")) / "unanswered"


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
