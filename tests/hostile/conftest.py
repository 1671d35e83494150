"""The fixtures of tests/api, clients with their own keys, and the API as a process that listens on a port."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

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


@dataclass(frozen=True)
class ServiceProcess:
    """A running API process: port, admin token and process id."""

    port: int
    token: str
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def resident(self) -> int:
        """Return the resident memory of the process in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


@pytest.fixture(scope="module")
def live(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A `python -m api` process, shared by the tests of a module."""
    with _run_api(shutil.copytree(template, tmp_path_factory.mktemp("live") / "data")) as live:
        yield live


@pytest.fixture
def serve(tmp_path: Path) -> Callable[[Path], AbstractContextManager[ServiceProcess]]:
    """A function that runs an API process on a copy of a data folder, with the current environment."""
    return lambda data: _run_api(shutil.copytree(data, tmp_path / "data"))


@contextmanager
def _run_api(data: Path) -> Iterator[ServiceProcess]:
    settings = Settings(data=data)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"FRS_DATA": str(settings.data), "FRS_PARENT_PID": str(os.getpid())}
    log = (settings.data / "api.log").open("wb")
    process = subprocess.Popen([sys.executable, "-m", "api", "--port", str(port)], env=environment, stderr=log)
    live = ServiceProcess(port, settings.api_key_file.read_text().strip(), process.pid)
    try:
        _wait_until_ready(live)
        yield live
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        log.close()
    assert b"Traceback" not in (settings.data / "api.log").read_bytes()


def _wait_until_ready(live: ServiceProcess) -> None:
    for _ in range(300):
        try:
            if httpx2.get(f"{live.url}/health/ready").is_success:
                return
        except httpx2.RequestError:
            pass
        time.sleep(0.1)
    pytest.fail("the API did not start")
