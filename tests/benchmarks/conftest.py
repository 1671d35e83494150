"""The benchmarks are scripts: their folder is added to sys.path."""

import sys
from pathlib import Path

import frs.detectors._mmdet_init  # noqa: F401

import pytest

from frs.engine.trainer import silence_libraries

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # as for `python benchmarks/step.py`


@pytest.fixture(autouse=True, scope="session")
def quiet_libraries() -> None:
    silence_libraries()
