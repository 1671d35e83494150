"""Create the folders, the tables and the first API keys; safe to run in several processes at once."""

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy.exc import ProgrammingError

from store.db import api_keys, grants
from store.db.database import Database, open_database
from store.db.schema import connecting, upgrade
from store.errors import DatabaseNotReady
from store.scheduling.wakeups import broker_folders
from store.settings import Settings

_INSUFFICIENT_PRIVILEGE = "42501"
"""PostgreSQL's SQLSTATE for a statement that the role may not execute."""


def initialise(settings: Settings) -> None:
    """Create the folders, migrate the database and ensure that the first API key and the metrics key exist.

    With `database_owner_url`, the role of `database_url` gets its rights. Idempotent. Never prints the key. Raises
    DatabaseNotReady if the database cannot be reached or migrated, or the rights cannot be granted.
    """
    make_folders(settings)
    database = open_database(settings.database_owner_url or settings.database_url)
    if database.engine.dialect.name == "sqlite":
        _create_private(Path(database.engine.url.database or ""))
    with connecting(), database.engine.connect():
        pass
    with _exclusive(settings.data / "init.lock"):
        _upgrade(database)
        if settings.database_owner_url:
            service = open_database(settings.database_url)
            grants.grant(database, service)
            service.engine.dispose()
        with database.write() as session:
            api_keys.ensure_key_file(session, settings.api_key_file)
            if settings.metrics_key_file and settings.metrics_key_file.exists():
                api_keys.add_metrics_key(session, settings.metrics_key_file)
            session.commit()
    database.engine.dispose()


def _upgrade(database: Database) -> None:
    """Migrate the database. Raises DatabaseNotReady if the role may not."""
    try:
        upgrade(database)
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != _INSUFFICIENT_PRIVILEGE:
            raise
        raise DatabaseNotReady(
            f"The database needs a migration, which the role of its URL may not do: {error.orig}",
            "Run `python -m store init` with the URL of the tables' owner in FRS_DATABASE_OWNER_URL.",
        ) from error


def _create_private(path: Path) -> None:
    """Create the database file (mode 0600) unless it exists: other users must not read the secrets of webhooks.

    An error is left to the migration, which reports that the file cannot be opened.
    """
    with suppress(OSError):
        path.touch(mode=0o600)


def make_folders(settings: Settings) -> None:
    """Create the folders of the service.

    Folders of data sets and models outside `data` are not created: their owner provides them.
    """
    for folder in _folders(settings):
        folder.mkdir(parents=True, exist_ok=True)


def _folders(settings: Settings) -> Iterable[Path]:
    yield settings.data
    input_roots = (settings.datasets_root, settings.models_root)
    yield from (folder for folder in input_roots if folder.is_relative_to(settings.data))
    yield from (settings.uploads_root, settings.work_root)
    if settings.artifacts_root:
        yield settings.artifacts_root
    if settings.broker_url.startswith("filesystem:"):
        yield from broker_folders(settings).values()


@contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    """Hold the lock file, which one process of this machine can hold at a time."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
