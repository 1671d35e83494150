"""A service of a benchmark's own: in a temporary folder, on loopback, with a checked data set of drawn shapes."""

import os
import socket
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

from frs.dataset.shapes.drawing import draw_dataset
from store.db.database import Database, open_database
from store.initialise import initialise
from store.settings import Settings

ROOT = Path(__file__).parents[1]
SPEC = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "schedule": {"epochs": 1}}
STUB = ROOT / "tests" / "worker"
"""A trainer that is none, for what is to be measured around it."""


@dataclass
class Service:
    settings: Settings
    port: int
    database: Database
    processes: dict[str, subprocess.Popen[bytes]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return self.settings.api_key_file.read_text().strip()

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)

    def start(self, name: str, *command: str) -> None:
        told = {f"FRS_{key.upper()}": str(value) for key, value in self.settings.model_dump(exclude_unset=True).items()}
        with (self.settings.data / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *command],
                env=os.environ | {"PYTHONPATH": str(ROOT), "FRS_MAX_ACTIVE_JOBS": "1000000"} | told,
                stdout=log,
                stderr=log,
            )

    def start_api(self) -> None:
        self.start("api", "-m", "api", "--port", str(self.port))
        until_answered(f"{self.url}/health/ready")

    def start_stub_worker(self, name: str = "worker") -> None:
        self.start(name, str(STUB / "stub_worker.py"))


@contextmanager
def service(**settings: Any) -> Iterator[Service]:
    """Its API running and a data set registered; workers are to be started."""
    with tempfile.TemporaryDirectory(prefix="frs-load-") as folder:
        chosen = Settings(data=Path(folder) / "data", **settings)
        initialise(chosen)
        draw_dataset(chosen.datasets_root / "shapes", train=8, val=4, size=64)
        started = Service(chosen, free_port(), open_database(chosen.database_url), {})
        try:
            started.start_api()
            with started.client() as client:
                client.post("/datasets", json={"name": "shapes"}).raise_for_status()
            yield started
        finally:
            for process in started.processes.values():
                end(process)
            started.database.engine.dispose()


@contextmanager
def floor() -> Iterator[str]:
    """The address of the bare floor, see `floor.py`."""
    with tempfile.TemporaryDirectory(prefix="frs-load-") as folder:
        port = free_port()
        command = ["-m", "uvicorn", "--app-dir", str(Path(__file__).parent), "floor:app", "--no-access-log"]
        environment = os.environ | {"FLOOR_DATABASE": f"{folder}/floor.db"}
        process = subprocess.Popen(
            [sys.executable, *command, "--port", str(port), "--log-level", "warning"], env=environment
        )
        try:
            until_answered(f"http://127.0.0.1:{port}/docs")
            yield f"http://127.0.0.1:{port}"
        finally:
            end(process)


@contextmanager
def redis_server() -> Iterator[str]:
    """The address of a Redis that keeps nothing."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def until_answered(url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise TimeoutError(f"{url} does not answer")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
