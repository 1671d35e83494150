"""API keys: 256 random bits each. The database keeps a SHA-256, which is enough for something nobody can guess."""

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from store.db.database import now
from store.db.tables import DEFAULT_OWNER, ApiKey
from store.errors import LastAdminKey

PREFIX_LENGTH = 8
_VALID = (ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now()))


class Scope(StrEnum):
    """What a key may do; each includes the ones before it."""

    READ = "read"
    """Look at its owner's jobs, data sets and detectors."""
    SUBMIT = "submit"
    """Post, change and delete them."""
    ADMIN = "admin"
    """See and change those of every owner, make and revoke keys, look at the whole service."""

    def includes(self, other: "Scope") -> bool:
        order = list(Scope)
        return order.index(self) >= order.index(other)


def new_token() -> str:
    return f"frs_{secrets.token_urlsafe(32)}"


def add(
    session: Session,
    name: str,
    token: str,
    *,
    owner: str = DEFAULT_OWNER,
    scopes: Sequence[Scope] = (Scope.ADMIN,),
    **limits: Any,
) -> ApiKey:
    """`limits`: `max_active_jobs`, `requests_per_minute`, `expires_at`."""
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
    """The key, unless it was revoked or has expired. Looked up by digest: its timing says nothing about the token."""
    wanted = token_digest(token)
    key = session.scalar(select(ApiKey).where(ApiKey.sha256 == wanted, *_VALID))
    return key if key is not None and hmac.compare_digest(key.sha256, wanted) else None


def any_exist(session: Session) -> bool:
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def revoke(session: Session, key: ApiKey) -> None:
    """Once more does nothing. Raises LastAdminKey where nobody could make another key afterwards."""
    if key.revoked_at is not None:
        return
    valid = session.scalars(select(ApiKey).where(*_VALID).order_by(ApiKey.id).with_for_update()).all()
    admins = [other.id for other in valid if widest_scope(other) is Scope.ADMIN]
    if admins == [key.id]:
        raise LastAdminKey("This is the last key with the scope `admin`.")
    session.execute(update(ApiKey).where(ApiKey.id == key.id).values(revoked_at=now()))


def lock_owner(session: Session, owner: str) -> None:
    """Until the transaction ends, nobody else counts this owner's jobs. On SQLite there is one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(owner, 0))))


def widest_scope(key: ApiKey) -> Scope:
    return max((Scope(scope) for scope in key.scopes), key=list(Scope).index)


def token_digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def ensure_file(session: Session, path: Path) -> None:
    """Makes the first key, readable by its owner alone, or makes an existing file's key known to the database.

    The file comes first: after a crash between the two, the next call finds it. A revoked key stays revoked.
    """
    if not path.exists():
        _write_private(path, new_token())
    token = path.read_text().strip()
    if session.scalar(select(ApiKey.id).where(ApiKey.sha256 == token_digest(token))) is None:
        add(session, "first key", token)


def _write_private(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    part.touch(mode=0o600, exist_ok=False)
    with part.open("w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
