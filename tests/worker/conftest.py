import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from worker_house import SHORT, House

from store.db.database import open_database
from store.initialise import initialise
from store.settings import Settings


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings(data=tmp_path_factory.mktemp("template"))
    initialise(settings)
    return settings.data


@pytest.fixture
def house(template: Path, tmp_path: Path) -> Iterator[House]:
    data = shutil.copytree(template, tmp_path / "data")
    house = House(Settings(data=data, **SHORT), open_database(Settings(data=data).database_url))
    house.add_dataset()
    yield house
    house.database.engine.dispose()
    assert house.trainers() == [], "a process was left behind"
