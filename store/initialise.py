"""Create the folders, the tables and the first API keys; safe to run in several processes at once."""

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from store.db import api_keys
from store.db.database import open_database
from store.db.schema import upgrade
from store.scheduling.wakeups import broker_folders
from store.settings import Settings


def initialise(settings: Settings) -> None:
    """Create the folders, migrate the database and ensure that the first API key and the metrics key exist.

    Idempotent. Never prints the key.
    """
    make_folders(settings)
    database = open_database(settings.database_url)
    if database.engine.dialect.name == "sqlite":
        _create_private(Path(database.engine.url.database or ""))
    with _exclusive(settings.data / "init.lock"):
        upgrade(database)
        with database.write() as session:
            api_keys.ensure_key_file(session, settings.api_key_file)
            if settings.metrics_key_file and settings.metrics_key_file.exists():
                api_keys.add_metrics_key(session, settings.metrics_key_file)
            session.commit()
    database.engine.dispose()


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
