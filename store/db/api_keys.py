"""API keys: 256 random bits each.

The database stores their SHA-256; random tokens need no slow password hash.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from store.db import audit
from store.db.database import now
from store.db.tables import DEFAULT_OWNER, ApiKey
from store.errors import LastAdminKey

PREFIX_LENGTH = 8
"""Number of characters of a token that are stored in clear, to identify the key in lists."""
_START, _TOKEN_LENGTH = "frs_", 47
"""First characters and length of every token."""
_VALID = (ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now()))


class Scope(StrEnum):
    """What a key may do. `INCLUDED` lists the scopes that a scope includes."""

    READ = "read"
    """Read the jobs, data sets and detectors of its owner."""
    SUBMIT = "submit"
    """Create, change and delete them."""
    PRIORITY = "priority"
    """Give jobs a priority above 0; a supplement to `submit`."""
    METRICS = "metrics"
    """Read the metrics of the service, for a monitoring system."""
    ADMIN = "admin"
    """Read and change those of every owner, create and revoke keys, read the state of the whole service."""


INCLUDED: Mapping[Scope, Collection[Scope]] = {Scope.SUBMIT: (Scope.READ,), Scope.ADMIN: tuple(Scope)}
"""The further scopes that a scope includes."""


def new_token() -> str:
    """Return a new random token."""
    return f"{_START}{secrets.token_urlsafe(32)}"


def token_prefix(token: str) -> str | None:
    """Return the characters of a token that identify its key; None if the text has not the form of a token.

    Any other text, such as a password sent by mistake, must not reach a log.
    """
    has_form = token.startswith(_START) and len(token) >= _TOKEN_LENGTH and token.isascii() and token.isprintable()
    return token[:PREFIX_LENGTH] if has_form else None


def add(
    session: Session,
    name: str,
    token: str,
    *,
    owner: str = DEFAULT_OWNER,
    scopes: Sequence[Scope] = (Scope.ADMIN,),
    **limits: Any,
) -> ApiKey:
    """Add a key for the token and return it.

    `limits` are the columns `max_active_jobs`, `max_disk_bytes`, `requests_per_minute` and `expires_at`.
    """
    key = ApiKey(
        name=name,
        prefix=token[:PREFIX_LENGTH],
        sha256=token_digest(token),
        owner=owner,
        scopes=[str(scope) for scope in scopes],
        **limits,
    )
    session.add(key)
    session.flush()
    return key


def find(session: Session, token: str) -> ApiKey | None:
    """Return the valid key of the token, or None if it is unknown, revoked or expired.

    The lookup is by digest, so that its timing reveals nothing about the token.
    """
    digest = token_digest(token)
    key = session.scalar(select(ApiKey).where(ApiKey.sha256 == digest, *_VALID))
    return key if key is not None and hmac.compare_digest(key.sha256, digest) else None


def any_exist(session: Session) -> bool:
    """Return whether there is any key, valid or not."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def revoke(session: Session, key: ApiKey) -> bool:
    """Revoke the key; return False if it was revoked before.

    Raises LastAdminKey if no valid admin key would be left.
    """
    if key.revoked_at is not None:
        return False
    valid = session.scalars(select(ApiKey).where(*_VALID).order_by(ApiKey.id).with_for_update()).all()
    admins = [other.id for other in valid if Scope.ADMIN in other.scopes]
    if admins == [key.id]:
        raise LastAdminKey("This is the last key with the scope `admin`.")
    session.execute(update(ApiKey).where(ApiKey.id == key.id).values(revoked_at=now()))
    return True


def lock_owner(session: Session, owner: str) -> None:
    """Serialise the transactions that count this owner's jobs; a no-op on SQLite, which has a single writer."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(owner, 0))))


def allowed_scopes(scopes: Iterable[str]) -> frozenset[Scope]:
    """Return the scopes of a key and those that they include."""
    own = {Scope(scope) for scope in scopes}
    return frozenset(own.union(*(INCLUDED.get(scope, ()) for scope in own)))


def token_digest(token: str) -> str:
    """Return the SHA-256 of the token, lower-case hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def ensure_key_file(session: Session, path: Path) -> None:
    """Create the file of the first key (mode 0600) unless it exists, and add its key to the database.

    The file is written first, so that after a crash between the two steps the next call completes them. A revoked key
    stays revoked.
    """
    if not path.exists():
        _write_private(path, new_token())
    _add_unless_known(session, "first key", path, Scope.ADMIN)


def add_metrics_key(session: Session, path: Path) -> None:
    """Add the key in the file, with the scope `metrics`, to the database. Idempotent; a revoked key stays revoked.

    Raises OSError if the file cannot be read.
    """
    _add_unless_known(session, "prometheus", path, Scope.METRICS)


def _add_unless_known(session: Session, name: str, path: Path, scope: Scope) -> None:
    token = path.read_text().strip()
    if session.scalar(select(ApiKey.id).where(ApiKey.sha256 == token_digest(token))) is None:
        key = add(session, name, token, scopes=[scope])
        audit.record(session, audit.SETUP, "key.create", [key.id], name=name, owner=key.owner, scopes=key.scopes)


def _write_private(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    part.touch(mode=0o600, exist_ok=False)
    with part.open("w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
