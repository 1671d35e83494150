"""API keys: 256 random bits each.

The database stores their SHA-256; random tokens need no slow password hash.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import case, func, or_, select, update
from sqlalchemy.orm import Session

from store.db import audit
from store.db.database import Database, insert, now
from store.db.idempotency import Idempotency, columns, refuse_repeated
from store.db.ids import new_id
from store.db.sweep_tables import Sweep
from store.db.tables import DEFAULT_OWNER, ApiKey
from store.errors import LastAdminKey
from store.states import INCLUDED_SCOPES, Scope

SIGN_IN = "sign-in"
"""`prefix` of the row of a user who signs in at the OpenID Connect provider; no token belongs to it."""
PREFIX_LENGTH = 8
"""Number of characters of a token that are stored in clear, to identify the key in lists."""
LIMITS = ("max_active_jobs", "max_disk_bytes", "requests_per_minute")
"""Columns of `ApiKey` that limit its owner; null: the limit of the settings."""
_START, _TOKEN_LENGTH = "frs_", 47
"""First characters and length of every token."""
_VALID = (ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now()))


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
    idempotency: Idempotency | None = None,
    **limits: Any,
) -> ApiKey:
    """Add a key for the token and return it; `limits` are the columns in `LIMITS`, `expires_at` and `id`.

    Raises AlreadyCreated and IdempotencyKeyReused.
    """
    if idempotency:
        lock_owner(session, owner)
        refuse_repeated(session, ApiKey, owner, idempotency)
    key = ApiKey(
        name=name,
        prefix=token[:PREFIX_LENGTH],
        sha256=token_digest(token),
        owner=owner,
        scopes=[str(scope) for scope in scopes],
        **limits,
        **columns(idempotency),
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


def sign_in(
    database: Database, issuer: str, subject: str, owner: str, scopes: Sequence[Scope], name: str | None = None
) -> ApiKey | None:
    """Return the row of a user of the provider as this owner; None if a row of the user was revoked, as any owner.

    The row is added at the first sign-in and follows the scopes. It gives the user's requests an id for limits, audit
    trail and revocation. Its digest has not the form of a token's, so that no token finds it. `name`: the user's own
    owner name, if the token has one.
    """
    digest, own_digest = (_sign_in_digest(issuer, subject, each) for each in (owner, name))
    values = {
        "name": (f"{SIGN_IN} of {name}" if name else SIGN_IN) + (f" for {owner}" if name != owner else ""),
        "scopes": [str(scope) for scope in scopes],
        "user_digest": _sign_in_digest(issuer, subject),
    }
    # by digest also those that a version without `user_digest` added
    is_of_user = or_(ApiKey.user_digest == values["user_digest"], ApiKey.sha256.in_([digest, own_digest]))
    with database.read() as session:
        rows = session.scalars(select(ApiKey).where(is_of_user)).all()
    if any(row.revoked_at is not None for row in rows):
        return None
    key = next((row for row in rows if row.sha256 == digest), None)
    if key is None or any(getattr(key, column) != value for column, value in values.items()):
        added = {"prefix": SIGN_IN, "owner": owner, "sha256": digest}
        with database.write() as session:
            session.execute(insert(session, ApiKey).values(**values, **added).on_conflict_do_nothing())
            session.execute(update(ApiKey).where(ApiKey.sha256 == digest).values(values))
            key = session.scalars(select(ApiKey).where(ApiKey.sha256 == digest)).one()
            session.commit()
    return key if key.revoked_at is None else None


def _sign_in_digest(*parts: str | None) -> str:
    return f"{SIGN_IN}:{token_digest(json.dumps(parts))}"


def disk_limits(session: Session, default: int) -> dict[str, int]:
    """Return the largest limit of each owner's valid keys in bytes; `default` is that of a key without a limit."""
    limit = func.max(func.coalesce(ApiKey.max_disk_bytes, default))
    query = select(ApiKey.owner, limit).where(*_VALID).group_by(ApiKey.owner)
    return dict(row._tuple() for row in session.execute(query))


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
    admins = [other.id for other in valid if Scope.ADMIN in other.scopes and other.prefix != SIGN_IN]
    if admins == [key.id]:
        raise LastAdminKey("This is the last key with the scope `admin`.")
    session.execute(update(ApiKey).where(ApiKey.id == key.id).values(revoked_at=now()))
    return True


def rotate(
    session: Session, key: ApiKey, token: str, grace_seconds: float, idempotency: Idempotency | None = None
) -> ApiKey | None:
    """Add a key like this one for `token`, and let this one expire after `grace_seconds`, unless it does before.

    Return the new key, which takes over this one's sweeps, and its expiry time without grace periods; None if this one
    is not valid. Raises AlreadyCreated and IdempotencyKeyReused.
    """
    if idempotency:
        lock_owner(session, key.owner)
        refuse_repeated(session, ApiKey, key.owner, idempotency)
    keys = _with_replacements(session, key)
    same = {name: getattr(key, name) for name in ("owner", *LIMITS)} | {"expires_at": keys[-1].expires_at}
    new_key_id, end = new_id("key"), now() + grace_seconds
    soonest = case((ApiKey.expires_at < end, ApiKey.expires_at), else_=end)
    if session.scalar(
        update(ApiKey)
        .where(ApiKey.id == key.id, ApiKey.prefix != SIGN_IN, *_VALID)
        .values(expires_at=soonest, replaced_by=new_key_id)
        .returning(ApiKey.id)
    ):
        scopes = [Scope(scope) for scope in key.scopes]
        new = add(session, key.name, token, id=new_key_id, scopes=scopes, idempotency=idempotency, **same)
        session.execute(update(Sweep).where(Sweep.key_id.in_(key.id for key in keys)).values(key_id=new.id))
        return new
    return None


def _with_replacements(session: Session, key: ApiKey) -> list[ApiKey]:
    """Return the key, followed by those that have replaced it; the last one has an expiry without grace period."""
    keys = [key]
    while keys[-1].replaced_by:
        keys.append(session.get_one(ApiKey, keys[-1].replaced_by))
    return keys


def lock_owner(session: Session, owner: str) -> None:
    """Serialise the transactions that count this owner's jobs or files; a no-op on SQLite, which has one writer."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(owner, 0))))


def allowed_scopes(scopes: Iterable[str]) -> frozenset[Scope]:
    """Return the scopes of a key and those that they include."""
    own = {Scope(scope) for scope in scopes}
    return frozenset(own.union(*(INCLUDED_SCOPES.get(scope, ()) for scope in own)))


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
