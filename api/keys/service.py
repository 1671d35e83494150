from sqlalchemy import select
from sqlalchemy.orm import Session

from api.http.errors import InvalidField, NotFoundError
from api.http.pagination import newest_first
from api.http.schemas import Page
from api.keys.schemas import Key, KeyCreate, NewKey
from store.db import api_keys
from store.db.database import Database, now
from store.db.tables import ApiKey

_SECONDS_A_DAY = 86_400.0
_MOST_DAYS = 36_500
"""A later end is as good as none, and the last years of the calendar are none in every zone."""


def create(database: Database, request: KeyCreate) -> NewKey:
    """Raises InvalidField for an end that is past."""
    token = api_keys.new_token()
    limits = {"max_active_jobs": request.max_active_jobs, "requests_per_minute": request.requests_per_minute}
    with database.write() as session:
        key = api_keys.add(
            session,
            request.name,
            token,
            owner=request.owner,
            scopes=request.scopes,
            expires_at=_end(session, request),
            **limits,
        )
        session.refresh(key)
        session.commit()
    return NewKey(**dict(Key.model_validate(key)), token=token)


def listing(database: Database, limit: int, cursor: str | None) -> Page[Key]:
    with database.read() as session:
        rows, next_cursor = newest_first(session, select(ApiKey), ApiKey, limit, cursor)
    return Page(data=[Key.model_validate(row) for row in rows], next_cursor=next_cursor)


def find(database: Database, key_id: str) -> Key:
    with database.read() as session:
        return Key.model_validate(_row(session, key_id))


def revoke(database: Database, key_id: str) -> None:
    """Once more does nothing. Raises LastAdminKey."""
    with database.write() as session:
        api_keys.revoke(session, _row(session, key_id))
        session.commit()


def _row(session: Session, key_id: str) -> ApiKey:
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFoundError("key_not_found", "No such API key.", "See GET /api-keys.")
    return key


def _end(session: Session, request: KeyCreate) -> float | None:
    present = session.scalars(select(now())).one()
    if request.expires_in_days:
        return present + request.expires_in_days * _SECONDS_A_DAY
    if request.expires_at is None:
        return None
    end = request.expires_at.timestamp()
    if end <= present:
        raise InvalidField("expires_at", "already_expired", "This time is past.", "Name a later one, or leave it out.")
    return min(end, present + _MOST_DAYS * _SECONDS_A_DAY)
