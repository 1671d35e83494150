"""The code of docs/client.md runs against a service, whose jobs a stand-in for a worker ends."""

import re
from pathlib import Path

import pytest
from servers import ApiProcess
from stand_in_worker import STUDENT, StandInWorker

from frs.dataset.shapes.drawing import draw_dataset
from store.artifacts.storage import open_artifacts
from store.db.database import open_database
from store.initialise import initialise
from store.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(data=tmp_path / "data")
    initialise(settings)
    draw_dataset(tmp_path / "cells", train=4, val=2, size=64)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FRS_API_KEY", raising=False)
    database = open_database(settings.database_url)
    with ApiProcess(settings) as api, StandInWorker(database, open_artifacts(settings), tmp_path):
        monkeypatch.setenv("FRS_URL", api.url)  # the key is that of the data folder, ./data
        code = "\n".join(match[1] for match in BLOCK.finditer(PAGE.read_text()))
        exec(compile(code, PAGE.name, "exec"), {"__name__": "client"})
    database.engine.dispose()
    output = capsys.readouterr().out
    lines = (
        "ready 4 images to train on",
        "True [",
        "succeeded completed",
        "student 0.5",
        "There is no data set of this id or name.",
        "['succeeded', 'succeeded']",
    )
    assert [line for line in lines if line not in output] == []
    assert [path.read_bytes() for path in (tmp_path / "students").glob("*.pth")] == [STUDENT]
