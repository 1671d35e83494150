import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from worker_harness import SHORT, WorkerHarness

from store.db.database import open_database
from store.initialise import initialise
from store.settings import Settings


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings(data=tmp_path_factory.mktemp("template"))
    initialise(settings)
    return settings.data


@pytest.fixture
def harness(template: Path, tmp_path: Path) -> Iterator[WorkerHarness]:
    data = shutil.copytree(template, tmp_path / "data")
    harness = WorkerHarness(Settings(data=data, **SHORT), open_database(Settings(data=data).database_url))
    harness.add_dataset()
    yield harness
    harness.database.engine.dispose()
    assert harness.trainers() == [], "a trainer is still running"
