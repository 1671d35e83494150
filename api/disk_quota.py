"""Limit of the disk space of an owner."""

from sqlalchemy.orm import Session

from api.context import Context
from api.http.auth import Caller
from api.http.errors import ApiError
from store.db import api_keys, usage
from store.settings import Settings

HINT = "See `frs usage`; remove old jobs with `frs clean`, or request a key with a larger limit."


def limit_of(settings: Settings, caller: Caller) -> int:
    """Return the limit of the caller's key in bytes, or the one of the settings."""
    return caller.max_disk_bytes or settings.max_disk_bytes


def check(session: Session, settings: Settings, caller: Caller, additional: int = 0, replaced: int = 0) -> None:
    """Raise ApiError 403 if the files of the owner and `additional` bytes exceed the owner's limit.

    `replaced` bytes of the owner's files no longer count.
    """
    limit, used = limit_of(settings, caller), usage.total_bytes(session, caller.owner) - replaced
    if used + additional > limit:
        size = _describe(used) + (f" and adds {_describe(additional)}" if additional else "")
        detail = f"{caller.owner} has stored {size}; the limit is {_describe(limit)}."
        raise ApiError(403, "disk_quota_exceeded", detail, HINT)


def check_added(session: Session, settings: Settings, caller: Caller, size: int) -> None:
    """Raise ApiError 403 if `size` more bytes exceed the owner's limit.

    Call it in the transaction that adds their row: concurrent uploads of the owner wait for its end.
    """
    api_keys.lock_owner(session, caller.owner)
    check(session, settings, caller, size)


def check_upload(context: Context, caller: Caller, size: int, replaced: int = 0) -> None:
    """Raise ApiError 403 if an upload of `size` bytes would exceed the owner's limit now; `check_added` decides.

    `replaced`: bytes of the data set that the upload replaces.
    """
    with context.database.read() as session:
        check(session, context.settings, caller, size, replaced)


def _describe(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"
