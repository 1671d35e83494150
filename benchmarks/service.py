"""Start a service for a benchmark: in a temporary folder, on loopback, with a checked data set of drawn shapes."""

import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from servers import ROOT, ApiProcess, Redis, environment, free_port, temporary_folder

from frs.dataset.shapes.drawing import draw_dataset
from store.db.database import Database, open_database
from store.initialise import initialise
from store.settings import Settings

SPEC = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "schedule": {"epochs": 1}}
STUB = ROOT / "tests" / "worker"
"""Folder of the stub trainer and its worker, for benchmarks of everything but training."""


@dataclass
class Service:
    """A running service: its settings, API, database and processes by name."""

    settings: Settings
    api: ApiProcess
    database: Database
    processes: dict[str, subprocess.Popen[bytes]]

    @property
    def url(self) -> str:
        return self.api.url

    @property
    def key(self) -> str:
        return self.api.key

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, headers=self.api.headers, timeout=60)

    def start(self, name: str, *command: str) -> None:
        with (self.settings.data / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *command], env=os.environ | environment(self.settings), stdout=log, stderr=log
            )

    def start_api(self) -> None:
        self.api.start()
        assert self.api.process
        self.processes["api"] = self.api.process

    def start_stub_worker(self, name: str = "worker") -> None:
        self.start(name, str(STUB / "stub_worker.py"))


@contextmanager
def run_service(**changes: Any) -> Iterator[Service]:
    """Yield a service with a running API and a registered data set, without workers."""
    with tempfile.TemporaryDirectory(prefix="frs-load-") as folder:
        settings = Settings(data=Path(folder) / "data", max_active_jobs=1_000_000, **changes)
        initialise(settings)
        draw_dataset(settings.datasets_root / "shapes", train=8, val=4, size=64)
        service = Service(settings, ApiProcess(settings), open_database(settings.database_url), {})
        try:
            service.start_api()
            with service.client() as client:
                client.post("/datasets", json={"name": "shapes"}).raise_for_status()
            yield service
        finally:
            for process in service.processes.values():
                kill(process)
            service.database.engine.dispose()


@contextmanager
def run_floor() -> Iterator[str]:
    """Run the minimal server of `floor.py` and yield its URL."""
    with tempfile.TemporaryDirectory(prefix="frs-load-") as folder:
        port = free_port()
        command = ["-m", "uvicorn", "--app-dir", str(Path(__file__).parent), "floor:app", "--no-access-log"]
        environment = os.environ | {"FLOOR_DATABASE": f"{folder}/floor.db"}
        process = subprocess.Popen(
            [sys.executable, *command, "--port", str(port), "--log-level", "warning"], env=environment
        )
        try:
            wait_until_answered(f"http://127.0.0.1:{port}/docs")
            yield f"http://127.0.0.1:{port}"
        finally:
            kill(process)


@contextmanager
def run_redis() -> Iterator[str]:
    """Run a Redis server without persistence and yield its URL."""
    with temporary_folder("frs-redis-") as folder, Redis(folder) as server:
        yield server.url


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def wait_until_answered(url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise TimeoutError(f"{url} does not answer")
