"""The fixtures of tests/api, clients with their own keys, and the API as a process that listens on a port."""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from servers import ApiProcess

from store.settings import Settings

_file = Path(__file__).parents[1] / "api" / "conftest.py"
_spec = importlib.util.spec_from_file_location("api_fixtures", _file)
assert _spec and _spec.loader
api_fixtures = sys.modules["api_fixtures"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(api_fixtures)
for _fixture in ("template", "settings", "included_routers", "app", "service", "shared_service", "shapes"):
    globals()[_fixture] = getattr(api_fixtures, _fixture)


@pytest.fixture
def key(service: Any) -> Callable[..., Any]:
    """A function that creates a key and returns the answer of POST /api-keys."""

    def make(owner: str, *scopes: str, **limits: Any) -> Any:
        body = {"name": owner, "owner": owner, "scopes": scopes or ["submit"], **limits}
        response = service.client.post("/api-keys", json=body)
        assert response.status_code == 201, response.text
        return response.json()

    return make


@pytest.fixture
def client_of(app: FastAPI, key: Callable[..., Any]) -> Callable[..., TestClient]:
    """A function that returns a client with a new key of the given owner."""

    def make(owner: str, *scopes: str, **limits: Any) -> TestClient:
        client = TestClient(app)
        client.headers["Authorization"] = f"Bearer {key(owner, *scopes, **limits)['token']}"
        return client

    return make


@pytest.fixture(scope="module")
def live(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    """A `python -m api` process, shared by the tests of a module."""
    with _run_api(shutil.copytree(template, tmp_path_factory.mktemp("live") / "data")) as live:
        yield live


@pytest.fixture
def serve(tmp_path: Path) -> Callable[[Path], AbstractContextManager[ApiProcess]]:
    """A function that runs an API process on a copy of a data folder, with the current environment."""
    return lambda data: _run_api(shutil.copytree(data, tmp_path / "data"))


@contextmanager
def _run_api(data: Path) -> Iterator[ApiProcess]:
    with ApiProcess(Settings(data=data)) as api:
        yield api
    assert b"Traceback" not in api.log.read_bytes()
