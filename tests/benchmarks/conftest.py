import sys
from pathlib import Path

import frs.detectors._mmdet_init  # noqa: F401

import pytest

from frs.engine.trainer import silence_libraries

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, as `python benchmarks/step.py` finds them


@pytest.fixture(autouse=True, scope="session")
def no_chatter() -> None:
    silence_libraries()
