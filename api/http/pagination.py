"""Keyset pagination: a cursor names the last row of a page, so rows added in between do not shift the next page."""

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
from store.db.sweep_tables import Sweep
from store.db.tables import ApiKey, AuditEntry, Dataset, Detector, Job
from store.db.webhook_tables import Webhook, WebhookDelivery

Limit = Annotated[int, Query(ge=1, le=200, description="Maximum number of rows on the page.")]
T = TypeVar("T", Job, Dataset, Detector, ApiKey, AuditEntry, Sweep, Webhook, WebhookDelivery)
MAX_SEQUENCE_NUMBER = 2**31 - 1
"""Largest number that an event or a batch of metrics of a job can have: they are stored as INTEGER."""
Cursor = Annotated[str | None, Query(min_length=1, max_length=200, description="`next_cursor` of the previous page.")]


def newest_first(
    session: Session, query: Select[T], table: type[T], limit: int, cursor: str | None
) -> tuple[Sequence[T], str | None]:
    """Return a page of rows, newest first, and the cursor of the next page; None on the last page.

    Raises InvalidField if the cursor is invalid.
    """
    time = table.at if issubclass(table, AuditEntry) else table.created_at
    sort_key = tuple_(time, table.id)
    if cursor is not None:
        query = query.where(_before(sort_key, cursor))
    rows = session.scalars(query.order_by(time.desc(), table.id.desc()).limit(limit + 1)).all()
    return rows[:limit], _encode(rows[limit - 1]) if len(rows) > limit else None


def parse_sequence_cursor(cursor: str | None) -> int:
    """Return the sequence number in the cursor of a numbered list; 0 without a cursor. Raises InvalidField."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 10 and int(cursor) <= MAX_SEQUENCE_NUMBER):
        raise _invalid()
    return int(cursor)


def _before(sort_key: Tuple, cursor: str) -> ColumnElement[bool]:
    try:
        created_at, id = json.loads(base64.urlsafe_b64decode(cursor))
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise _invalid() from error
    if not (isinstance(created_at, float) and math.isfinite(created_at) and isinstance(id, str) and id.isascii()):
        raise _invalid()
    return sort_key < (created_at, id)


def _encode(row: Job | Dataset | Detector | ApiKey | AuditEntry | Sweep | Webhook | WebhookDelivery) -> str:
    time = row.at if isinstance(row, AuditEntry) else row.created_at
    return base64.urlsafe_b64encode(json.dumps([time, row.id]).encode()).decode()


def _invalid() -> InvalidField:
    return InvalidField(
        "cursor",
        "invalid_cursor",
        "This is not a cursor of this list.",
        "Send `next_cursor` of the previous page unchanged.",
    )
