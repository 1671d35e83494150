import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "worker"))  # for the stub and its house

from estate import Estate  # noqa: E402
from servers import Postgres, Redis, postgres_binaries, temporary_folder  # noqa: E402


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Where CI runs, what these tests need is there: a test that skips has not been run."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and Path(__file__).parent in item.path.parents:
        report.outcome = "failed"
    return report


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


@pytest.fixture
def estate_with(tmp_path: Path) -> Iterator[Callable[..., Estate]]:
    """Opens a service with these settings; closes it after the test."""
    with ExitStack() as estates:
        yield lambda **settings: estates.enter_context(Estate(tmp_path, **settings))
