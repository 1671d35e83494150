"""Fixtures: an API process without a worker, and the `frs` command run against it."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import ApiProcess
from typer.testing import CliRunner, Result

from cli import terminal
from cli.main import app
from frs.dataset.shapes.drawing import draw_dataset
from store.initialise import initialise
from store.settings import Settings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("data")
    draw_dataset(folder / "datasets" / "shapes", train=4, val=2, size=64)
    shutil.copytree(folder / "datasets" / "shapes", folder / "datasets" / "incomplete")
    sorted((folder / "datasets" / "incomplete" / "train").iterdir())[0].unlink()
    settings = Settings(data=folder)
    initialise(settings)
    with ApiProcess(settings) as api:
        (folder / "url").write_text(api.url)
        yield folder
    assert api.process and api.process.returncode in (0, -signal.SIGTERM)


@pytest.fixture
def frs(data: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("FRS_DATA", str(data))
    for console in (terminal.stdout, terminal.stderr):  # rich reads COLUMNS once, at import
        monkeypatch.setattr(console, "width", 200)

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
