"""Rights of the PostgreSQL role of API and workers, which owns no table: it changes all rows but those of `audit`.

A trigger refuses changes of `audit` too, but the owner of a table can remove its triggers.
"""

from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

import store.db.sweep_tables
import store.db.webhook_tables  # noqa: F401  both add their tables to the metadata
from store.db.database import Database
from store.db.tables import AuditEntry, Base
from store.errors import DatabaseNotReady

_AUDIT = AuditEntry.__tablename__
_VERSION = "alembic_version"
"""Alembic's table: the revision of the database."""
_IDENTITY = "SELECT quote_ident(current_user), current_user, current_database()"
_OWNS = "SELECT pg_has_role(CAST(:role AS name), relowner, 'MEMBER') FROM pg_class WHERE oid = CAST(:table AS regclass)"
_CHANGES = "SELECT has_table_privilege(CAST(:role AS name), :table, 'UPDATE, DELETE, TRUNCATE, TRIGGER')"


def grant(owner: Database, service: Database) -> None:
    """Grant the role that `service` connects as its rights on all tables of this revision. Idempotent.

    Raises DatabaseNotReady if the role cannot connect to this database, or if it could change rows of `audit` all the
    same, as a superuser, as a member of the owner or by grants of others.
    """
    quoted, role, database = _connect(service)
    with owner.write() as session:
        if session.execute(text(_IDENTITY)).one()[2] != database:
            raise DatabaseNotReady(
                f"FRS_DATABASE_URL names the database {database}, FRS_DATABASE_OWNER_URL another one.",
                "Correct one of them.",
            )
        _refuse_if(session, _OWNS, role, "is a superuser, or the owner of the tables or a member of it")
        for statement in _statements(session, quoted):
            session.execute(text(statement))
        _refuse_if(session, _CHANGES, role, "has further rights on it, of its own, by another role or by PUBLIC")
        session.commit()


def _connect(service: Database) -> tuple[str, str, str]:
    """Return the role, quoted and not, and the database of `service`."""
    try:
        with service.read() as session:
            quoted, role, database = session.execute(text(_IDENTITY)).one()
    except OperationalError as error:
        raise DatabaseNotReady(
            f"The role of FRS_DATABASE_URL cannot connect: {error.orig}",
            "If it does not exist, run as the owner: CREATE ROLE frs_service LOGIN PASSWORD '...'.",
        ) from error
    return quoted, role, database


def _statements(session: Session, role: str) -> list[str]:
    schema = session.execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    rows = ", ".join(name for name in Base.metadata.tables if name != _AUDIT)
    return [
        f"GRANT USAGE ON SCHEMA {schema} TO {role}",
        f"GRANT SELECT ON {_VERSION} TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {rows} TO {role}",
        f"REVOKE ALL ON {_AUDIT} FROM {role}",
        f"GRANT SELECT, INSERT ON {_AUDIT} TO {role}",
    ]


def _refuse_if(session: Session, query: str, role: str, reason: str) -> None:
    if session.execute(text(query), {"role": role, "table": _AUDIT}).scalar_one():
        raise DatabaseNotReady(
            f"The role {role} of FRS_DATABASE_URL can change the audit trail: it {reason}.",
            "Name a role that has no rights but those that `python -m store init` grants.",
        )
