"""Lists by keyset: a cursor says after which row the next page begins, so rows added meanwhile shift nothing."""

import base64
import binascii
import json
import math
from collections.abc import Sequence
from typing import Annotated, TypeVar

from fastapi import Query
from sqlalchemy import ColumnElement, Select, Tuple, tuple_
from sqlalchemy.orm import Session

from api.http.errors import InvalidField
from store.db.tables import ApiKey, Dataset, Detector, Job

Limit = Annotated[int, Query(ge=1, le=200)]
T = TypeVar("T", Job, Dataset, Detector, ApiKey)
Cursor = Annotated[str | None, Query(min_length=1, max_length=200, description="`next_cursor` of the page before.")]


def newest_first(
    session: Session, query: Select[T], table: type[T], limit: int, cursor: str | None
) -> tuple[Sequence[T], str | None]:
    """A page of rows, and the cursor of the next. Raises InvalidField for a cursor that is none of ours."""
    place = tuple_(table.created_at, table.id)
    if cursor is not None:
        query = query.where(_before(place, cursor))
    rows = session.scalars(query.order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)).all()
    return rows[:limit], _encode(rows[limit - 1]) if len(rows) > limit else None


def number(cursor: str | None) -> int:
    """The cursor of a list whose rows are numbered. Raises InvalidField."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 15):
        raise _invalid()
    return int(cursor)


def _before(place: Tuple, cursor: str) -> ColumnElement[bool]:
    try:
        created_at, id = json.loads(base64.urlsafe_b64decode(cursor))
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise _invalid() from error
    if not (isinstance(created_at, float) and math.isfinite(created_at) and isinstance(id, str) and id.isascii()):
        raise _invalid()
    return place < (created_at, id)


def _encode(row: Job | Dataset | Detector | ApiKey) -> str:
    return base64.urlsafe_b64encode(json.dumps([row.created_at, row.id]).encode()).decode()


def _invalid() -> InvalidField:
    return InvalidField("cursor", "invalid_cursor", "Not a cursor of this list.", "Use `next_cursor` as it came.")
