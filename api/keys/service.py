"""Create, list and revoke API keys."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.http.auth import Caller
from api.http.errors import ApiError, InvalidField, NotFoundError
from api.http.pagination import newest_first
from api.http.schemas import Page
from api.keys.schemas import Key, KeyCreate, KeyRotation, NewKey
from store.db import api_keys, audit
from store.db.database import Database, now
from store.db.idempotency import Idempotency
from store.db.tables import ApiKey

_SECONDS_PER_DAY = 86_400.0
_MAX_DAYS = 36_500
"""Longest lifetime of a key; a later expiry time is reduced to it.

The last years of the calendar cannot be represented in every time zone.
"""


def create_key(database: Database, caller: Caller, request: KeyCreate, idempotency_key: str | None) -> NewKey:
    """Create a key and return it with its token.

    Raises InvalidField if the expiry time is in the past, AlreadyCreated and IdempotencyKeyReused.
    """
    token = api_keys.new_token()
    limits = {name: getattr(request, name) for name in api_keys.LIMITS}
    with database.write() as session:
        key = api_keys.add(
            session,
            request.name,
            token,
            owner=request.owner,
            scopes=request.scopes,
            expires_at=_expiry_time(session, request),
            idempotency=Idempotency.of(idempotency_key, request, "create", caller.owner),
            **limits,
        )
        session.refresh(key)
        audit.record(
            session, caller.actor, "key.create", [key.id], **request.model_dump(mode="json", exclude_none=True)
        )
        session.commit()
    return NewKey(**dict(Key.model_validate(key)), token=token)


def rotate_key(
    database: Database, caller: Caller, key_id: str, request: KeyRotation, idempotency_key: str | None
) -> NewKey:
    """Create a key like this one and let this one expire after the grace period. Return the new key with its token.

    Raises NotFoundError, ApiError, 409, if the key is not valid or was not created with a token, AlreadyCreated and
    IdempotencyKeyReused.
    """
    idempotency = Idempotency.of(idempotency_key, request, "rotate", caller.owner, key_id)
    token = api_keys.new_token()
    with database.write() as session:
        old = _get_row(session, key_id)
        new = api_keys.rotate(session, old, token, 3600 * request.grace_hours, idempotency)
        if new is None:
            hint = "Create a key instead."
            raise ApiError(
                409, "key_not_valid", "This key has expired or was revoked, or it is a signed-in user.", hint
            )
        session.refresh(new)
        audit.record(session, caller.actor, "key.rotate", [old.id, new.id], name=old.name, owner=old.owner)
        session.commit()
    return NewKey(**dict(Key.model_validate(new)), token=token)


def list_keys(database: Database, limit: int, cursor: str | None) -> Page[Key]:
    """Return a page of keys, newest first. Raises InvalidField for an invalid cursor."""
    with database.read() as session:
        rows, next_cursor = newest_first(session, select(ApiKey), ApiKey, limit, cursor)
    return Page(data=[Key.model_validate(row) for row in rows], next_cursor=next_cursor)


def get_key(database: Database, key_id: str) -> Key:
    """Return a key. Raises NotFoundError."""
    with database.read() as session:
        return Key.model_validate(_get_row(session, key_id))


def revoke_key(database: Database, caller: Caller, key_id: str) -> None:
    """Revoke a key. Idempotent. Raises NotFoundError, LastAdminKey."""
    with database.write() as session:
        if api_keys.revoke(session, key := _get_row(session, key_id)):
            audit.record(session, caller.actor, "key.revoke", [key.id], name=key.name, owner=key.owner)
        session.commit()


def _get_row(session: Session, key_id: str) -> ApiKey:
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFoundError("key_not_found", "There is no API key of this id.", "The list of API keys has their ids.")
    return key


def _expiry_time(session: Session, request: KeyCreate) -> float | None:
    """Return the expiry time in seconds since 1970; None: the key does not expire."""
    present = session.scalars(select(now())).one()
    if request.expires_in_days:
        return present + request.expires_in_days * _SECONDS_PER_DAY
    if request.expires_at is None:
        return None
    expires_at = request.expires_at.timestamp()
    if expires_at <= present:
        hint = "Send a later time, or leave it out."
        raise InvalidField("expires_at", "already_expired", "This time is in the past.", hint)
    return min(expires_at, present + _MAX_DAYS * _SECONDS_PER_DAY)
