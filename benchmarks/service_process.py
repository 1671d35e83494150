"""An API process on a temporary SQLite or PostgreSQL database, for benchmarks over HTTP."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers import ApiProcess, Postgres, postgres_binaries, temporary_folder

from store.db.database import Database, open_database
from store.initialise import initialise
from store.settings import Settings

SQLITE, POSTGRESQL = "sqlite", "postgresql"


@dataclass(frozen=True)
class ServiceProcess:
    """A temporary service: its database, and its API, which is not started yet."""

    database: Database
    """On SQLite without foreign keys, so that it can be filled fast."""
    api: ApiProcess


@contextmanager
def start_service(kind: str, **settings_variables: str) -> Iterator[ServiceProcess]:
    """Yield a service on a temporary database. `settings_variables` are environment variables of the API."""
    with tempfile.TemporaryDirectory(prefix="frs-bench-") as folder, _url(kind, Path(folder)) as url:
        settings = Settings(data=Path(folder), database_url=url)
        initialise(settings)
        database = open_database(url, foreign_keys=False)
        yield ServiceProcess(database, ApiProcess(settings, **settings_variables))
        database.engine.dispose()


def has_postgresql() -> bool:
    return postgres_binaries() is not None


@contextmanager
def _url(kind: str, folder: Path) -> Iterator[str]:
    if kind == SQLITE:
        yield f"sqlite:///{folder / 'frs.db'}"
        return
    options = ("fsync=off", "max_wal_size=4GB")  # the benchmarks measure reads
    with temporary_folder("frs-postgresql-") as server_folder, Postgres(server_folder, *options) as server:
        yield server.url
