import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for _folder in ("store", "worker", "api"):
    sys.path.insert(0, str(Path(__file__).parents[1] / _folder))  # for their houses

import worker_house  # noqa: E402
from store_house import house, postgresql, sqlite, url  # noqa: E402

from store.database import open_database  # noqa: E402
from store.schema import initialise  # noqa: E402
from store.settings import Settings  # noqa: E402

__all__ = ["house", "postgresql", "sqlite", "url"]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings(data=tmp_path_factory.mktemp("template"))
    initialise(settings)
    return settings.data


@pytest.fixture
def workshop(template: Path, tmp_path: Path) -> Iterator[worker_house.House]:
    """As `house` of the worker's tests: real files and real processes, a stub for a trainer."""
    data = shutil.copytree(template, tmp_path / "data")
    settings = Settings(data=data, **worker_house.SHORT)
    workshop = worker_house.House(settings, open_database(settings.database_url))
    workshop.add_dataset()
    yield workshop
    workshop.database.engine.dispose()
    assert workshop.trainers() == [], "a process was left behind"
