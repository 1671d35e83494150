"""Create what must exist before anything runs: folders, tables, the first API key. Any number of processes may ask at once."""

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from store.db import api_keys
from store.db.database import open_database
from store.db.schema import upgrade
from store.scheduling.wakeups import broker_folders
from store.settings import Settings


def initialise(settings: Settings) -> None:
    """Idempotent. Never shows the key."""
    make_folders(settings)
    database = open_database(settings.database_url)
    with _only_one(settings.data / "init.lock"):
        upgrade(database)
        with database.write() as session:
            api_keys.ensure_file(session, settings.api_key_file)
            session.commit()
    database.engine.dispose()


def make_folders(settings: Settings) -> None:
    """Those of the service. Data sets and detectors that lie elsewhere are their owner's to put there."""
    for folder in _folders(settings):
        folder.mkdir(parents=True, exist_ok=True)


def _folders(settings: Settings) -> Iterable[Path]:
    yield settings.data
    given = (settings.datasets_root, settings.models_root)
    yield from (folder for folder in given if folder.is_relative_to(settings.data))
    yield from (settings.uploads_root, settings.work_root)
    if settings.artifacts_root:
        yield settings.artifacts_root
    if settings.broker_url.startswith("filesystem:"):
        yield from broker_folders(settings).values()


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """One process of this machine at a time."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
