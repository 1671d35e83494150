import sys
from pathlib import Path

import frs.prelude  # noqa: F401

import pytest

from frs.trainer import quiet

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, as `python benchmarks/step.py` finds them


@pytest.fixture(autouse=True, scope="session")
def no_chatter() -> None:
    quiet()
