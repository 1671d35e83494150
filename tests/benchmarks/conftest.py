import frs.detectors._mmdet_init  # noqa: F401

import pytest

from frs.engine.trainer import silence_libraries


@pytest.fixture(autouse=True, scope="session")
def quiet_libraries() -> None:
    silence_libraries()
