"""Fixtures of the fault tests: a worker harness, whole services, and Redis and PostgreSQL servers of their own."""

import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

for _folder in ("store", "worker", "api"):
    sys.path.insert(0, str(Path(__file__).parents[1] / _folder))  # for the harnesses of those folders

from database_harness import harness, postgresql, sqlite, url  # noqa: E402
from object_storage import bucket, object_storage  # noqa: E402
from servers import Postgres, Redis, postgres_binaries, temporary_folder  # noqa: E402
from service_harness import ServiceHarness  # noqa: E402
from worker_harness import SHORT, WorkerHarness  # noqa: E402

from store.db.database import open_database  # noqa: E402
from store.initialise import initialise  # noqa: E402
from store.settings import Settings  # noqa: E402

__all__ = ["bucket", "harness", "object_storage", "postgresql", "sqlite", "url"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Turn a skip into a failure in CI, where everything that these tests need is installed."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and Path(__file__).parent in item.path.parents:
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialised data folder that tests copy."""
    settings = Settings(data=tmp_path_factory.mktemp("template"))
    initialise(settings)
    return settings.data


@pytest.fixture
def worker_harness(template: Path, tmp_path: Path) -> Iterator[WorkerHarness]:
    """A worker harness on SQLite with one data set; fails the test if a trainer process is left."""
    data = shutil.copytree(template, tmp_path / "data")
    settings = Settings(data=data, **SHORT)
    worker_harness = WorkerHarness(settings, open_database(settings.database_url))
    worker_harness.add_dataset()
    yield worker_harness
    worker_harness.database.engine.dispose()
    assert worker_harness.trainers() == [], "a trainer process is left"


@pytest.fixture
def open_service(tmp_path: Path) -> Iterator[Callable[..., ServiceHarness]]:
    """A function that opens a service with the given settings; the service is closed after the test."""
    with ExitStack() as services:
        yield lambda **settings: services.enter_context(ServiceHarness(tmp_path, **settings))


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A running Redis server."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with temporary_folder("frs-redis-") as folder, Redis(folder) as server:
        yield server


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL server with an empty database `frs`."""
    if postgres_binaries() is None:
        pytest.skip("PostgreSQL is not installed in /usr/lib/postgresql")
    with temporary_folder("frs-postgresql-") as folder, Postgres(folder) as server:
        yield server
