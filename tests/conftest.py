import os
from collections.abc import Iterator

import pytest

LONG = (
    "frs/test_launcher.py",
    "faults/test_faults_broker.py",
    "frs/test_distributed.py",
    "frs/test_engine.py",
    "faults/test_faults_database.py",
    "faults/test_faults_streams.py",
    "client/test_restarts.py",
    "frs/test_engine_command.py",
    "faults/test_faults_objects.py",
    "faults/test_faults_any_call.py",
    "frs/test_training_equivalence.py",
    "e2e/test_service.py",
    "frs/test_teacher_cache.py",
)
"""Files that take longest. They start first: a process that starts one at the end keeps the others waiting."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests by file, long files first."""
    items.sort(key=lambda item: next((i for i, name in enumerate(LONG) if item.path.match(name)), len(LONG)))


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Undo what a test changes in this process's environment: a command hides the GPUs from its process for good."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)
