"""The tables' revision: upgrade, downgrade and check."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from store.db.database import Database, open_database
from store.errors import DatabaseNotReady

_ADVISORY_LOCK = 0x667273
"""`frs`: one migration at a time on a PostgreSQL that several hosts share."""


def upgrade(database: Database, revision: str = "head") -> None:
    """Migrates in one transaction."""
    _migrate(database, command.upgrade, revision)


def downgrade(database: Database, revision: str) -> None:
    _migrate(database, command.downgrade, revision)


def check(database: Database) -> None:
    """Raises DatabaseNotReady where tables lack something this code needs; tables of a later version are fine."""
    head, older = _revisions()
    with database.engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    if found is None or found in older:
        raise DatabaseNotReady(f"The database is at revision {found or 'none'}, this version needs {head}.")


def _migrate(database: Database, change: Callable[[Config, str], None], revision: str) -> None:
    config = _config()
    with _migrating(database) as session:
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("SET LOCAL statement_timeout = 0"))
            session.execute(text("SET LOCAL lock_timeout = 0"))
            session.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        config.attributes["connection"] = session.connection()
        change(config, revision)
        session.commit()


@contextmanager
def _migrating(database: Database) -> Iterator[Session]:
    """On SQLite without foreign keys: a table is altered by making it anew, which would delete what refers to it."""
    if database.engine.dialect.name != "sqlite":
        with database.write() as session:
            yield session
        return
    own = open_database(database.engine.url.render_as_string(hide_password=False), foreign_keys=False)
    with own.write() as session:
        yield session
    own.engine.dispose()


@cache
def _revisions() -> tuple[str | None, frozenset[str]]:
    """The newest revision this code knows, and all before it; read once, for readiness is asked for often."""
    scripts = ScriptDirectory.from_config(_config())
    head = scripts.get_current_head()
    return head, frozenset(script.revision for script in scripts.walk_revisions() if script.revision != head)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "store.db:migrations")
    return config
