import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

for _folder in ("store", "worker", "api"):
    sys.path.insert(0, str(Path(__file__).parents[1] / _folder))  # for their houses

import worker_harness  # noqa: E402
from database_harness import harness, postgresql, sqlite, url  # noqa: E402
from object_storage import bucket, object_storage  # noqa: E402
from servers import Postgres, Redis, postgres_binaries, temporary_folder  # noqa: E402
from service_harness import ServiceHarness  # noqa: E402

from store.db.database import open_database  # noqa: E402
from store.initialise import initialise  # noqa: E402
from store.settings import Settings  # noqa: E402

__all__ = ["bucket", "harness", "object_storage", "postgresql", "sqlite", "url"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Where CI runs, what these tests need is there: a test that skips has not been run."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and Path(__file__).parent in item.path.parents:
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings(data=tmp_path_factory.mktemp("template"))
    initialise(settings)
    return settings.data


@pytest.fixture
def workshop(template: Path, tmp_path: Path) -> Iterator[worker_harness.WorkerHarness]:
    """As `harness` of the worker's tests: real files and real processes, a stub for a trainer."""
    data = shutil.copytree(template, tmp_path / "data")
    settings = Settings(data=data, **worker_harness.SHORT)
    workshop = worker_harness.WorkerHarness(settings, open_database(settings.database_url))
    workshop.add_dataset()
    yield workshop
    workshop.database.engine.dispose()
    assert workshop.trainers() == [], "a process was left behind"


@pytest.fixture
def service_with(tmp_path: Path) -> Iterator[Callable[..., ServiceHarness]]:
    """Opens a service with these settings; closes it after the test."""
    with ExitStack() as estates:
        yield lambda **settings: estates.enter_context(ServiceHarness(tmp_path, **settings))


@pytest.fixture
def redis() -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with temporary_folder("frs-redis-") as folder, Redis(folder) as server:
        yield server


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    if postgres_binaries() is None:
        pytest.skip("PostgreSQL is not installed in /usr/lib/postgresql")
    with temporary_folder("frs-postgresql-") as folder, Postgres(folder) as server:
        yield server
