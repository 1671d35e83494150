"""Schema revision of the database: upgrade, downgrade and check."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

import store.db.sweep_tables  # noqa: F401  adds its tables to the metadata
from store.db.database import Database, open_database
from store.errors import DatabaseNotReady

_ADVISORY_LOCK = 0x667273
"""`frs` in ASCII: allows one migration at a time on a PostgreSQL shared by several hosts."""


def upgrade(database: Database, revision: str = "head") -> None:
    """Upgrade to the revision in one transaction."""
    _migrate(database, command.upgrade, revision)


def downgrade(database: Database, revision: str) -> None:
    """Downgrade to the revision in one transaction."""
    _migrate(database, command.downgrade, revision)


def check(database: Database) -> None:
    """Raise DatabaseNotReady if the database has no tables or an older revision; a later revision is accepted."""
    head, older = _revisions()
    with database.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current is None or current in older:
        raise DatabaseNotReady(f"The database is at revision {current or 'none'}; this version needs {head}.")


@contextmanager
def connecting() -> Iterator[None]:
    """Raise DatabaseNotReady with the reason if the database cannot be reached in the block."""
    try:
        yield
    except OperationalError as error:
        reason = str(error.orig).partition("\n")[0]  # never contains the password
        raise DatabaseNotReady(
            f"The database cannot be reached: {reason}.",
            "Check its URL, which `python -m store settings` shows, and that its server is running; run "
            "`python -m store init` for a new one.",
        ) from error


def _migrate(database: Database, change: Callable[[Config, str], None], revision: str) -> None:
    config = _config()
    with _migration_session(database) as session:
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("SET LOCAL statement_timeout = 0"))
            session.execute(text("SET LOCAL lock_timeout = 0"))
            session.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        config.attributes["connection"] = session.connection()
        change(config, revision)
        session.commit()


@contextmanager
def _migration_session(database: Database) -> Iterator[Session]:
    """Open a session for migrations, on SQLite without foreign keys.

    On SQLite a table is altered by recreating it, which would delete the rows that refer to it.
    """
    if database.engine.dialect.name != "sqlite":
        with database.write() as session:
            yield session
        return
    separate = open_database(database.engine.url.render_as_string(hide_password=False), foreign_keys=False)
    with separate.write() as session:
        yield session
    separate.engine.dispose()


@cache
def _revisions() -> tuple[str | None, frozenset[str]]:
    """Return the newest revision of this code and all earlier ones; cached because readiness is checked often."""
    scripts = ScriptDirectory.from_config(_config())
    head = scripts.get_current_head()
    return head, frozenset(script.revision for script in scripts.walk_revisions() if script.revision != head)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "store.db:migrations")
    return config
