"""Read the audit trail."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, select

from api.audit.schemas import AuditEntry
from api.http.pagination import newest_first
from api.http.schemas import Page
from store.db import tables
from store.db.database import Database


@dataclass(frozen=True)
class AuditFilter:
    """Conditions of `GET /audit`; None: no condition."""

    owner: str | None = None
    action: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def list_entries(database: Database, audit_filter: AuditFilter, limit: int, cursor: str | None) -> Page[AuditEntry]:
    """Return a page of entries, newest first. Raises InvalidField for an invalid cursor."""
    query = select(tables.AuditEntry).where(*_conditions(audit_filter))
    with database.read() as session:
        rows, next_cursor = newest_first(session, query, tables.AuditEntry, limit, cursor)
    return Page(data=[AuditEntry.model_validate(row) for row in rows], next_cursor=next_cursor)


def _conditions(audit_filter: AuditFilter) -> list[ColumnElement[bool]]:
    entry = tables.AuditEntry
    equal = (
        (entry.owner, audit_filter.owner),
        (entry.action, audit_filter.action),
        (entry.target, audit_filter.target),
    )
    conditions = [column == value for column, value in equal if value is not None]
    if audit_filter.since:
        conditions.append(entry.at >= audit_filter.since.timestamp())
    if audit_filter.until:
        conditions.append(entry.at < audit_filter.until.timestamp())
    return conditions
