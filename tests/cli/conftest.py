"""Fixtures: an API process without a worker, and the `frs` command run against it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner, Result

from cli import terminal
from cli.main import app
from frs.dataset.shapes.drawing import draw_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("data")
    draw_dataset(folder / "datasets" / "shapes", train=4, val=2, size=64)
    shutil.copytree(folder / "datasets" / "shapes", folder / "datasets" / "incomplete")
    sorted((folder / "datasets" / "incomplete" / "train").iterdir())[0].unlink()
    environment = os.environ | {"FRS_DATA": str(folder)}
    subprocess.run([sys.executable, "-m", "store", "init"], env=environment, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    (folder / "url").write_text(url)
    api = subprocess.Popen([sys.executable, "-m", "api", "--port", url.rpartition(":")[2]], env=environment)
    wait_until_ready(url)
    yield folder
    api.terminate()
    assert api.wait(20) in (0, -signal.SIGTERM)


def wait_until_ready(url: str) -> None:
    for _ in range(200):
        try:
            if httpx2.get(f"{url}/health/ready").is_success:
                return
        except httpx2.RequestError:
            pass
        time.sleep(0.1)
    pytest.fail("the API did not start")


@pytest.fixture
def frs(data: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("FRS_DATA", str(data))
    for console in (terminal.stdout, terminal.stderr):  # rich reads COLUMNS once, at import
        monkeypatch.setattr(console, "_width", 200)

    def run(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture
def shapes(frs: Any) -> None:
    if "shapes" not in frs("datasets", "list").output:
        frs("datasets", "add", "shapes")
