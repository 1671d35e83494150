"""The code of the notebooks in examples/ runs, with little data and one epoch. Their text is not checked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers import ApiProcess
from stand_in_worker import StandInWorker

from cli.demo import copy_teacher_weights
from store.artifacts.storage import open_artifacts
from store.db.database import open_database
from store.initialise import initialise
from store.settings import Settings

EXAMPLES = Path(__file__).parents[2] / "examples"


def code_of(name: str, **parameters: object) -> str:
    """Return the code of a notebook; `parameters` follow the cell with this tag, as papermill sets them."""
    cells = json.loads((EXAMPLES / name).read_text())["cells"]
    blocks = []
    for cell in cells:
        if cell["cell_type"] == "code":
            blocks.append("".join(cell["source"]))
        if "parameters" in cell["metadata"].get("tags", ()):
            blocks += [f"{key} = {value!r}" for key, value in parameters.items()]
    return "\n\n".join(blocks)


def run(code: str, folder: Path) -> str:
    """Run the code in a process of its own, as a kernel does, and return what it printed."""
    environment = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_has_parameters_and_no_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    assert sum("parameters" in cell["metadata"].get("tags", ()) for cell in cells) == 1
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code"), "clear the outputs"


def test_from_a_data_set_to_a_verdict(tmp_path):
    settings = Settings(data=tmp_path / "data")
    initialise(settings)
    copy_teacher_weights(tmp_path / "data" / "models")
    database = open_database(settings.database_url)
    code = code_of("dataset_to_verdict.ipynb", DATA=str(tmp_path / "data"), EPOCHS=1, TRAIN=4, VAL=2)
    with ApiProcess(settings) as api, StandInWorker(database, open_artifacts(settings), tmp_path):
        code = f"import os\nos.environ['FRS_URL'] = {api.url!r}\n{code}"
        printed = run(code, tmp_path)
    database.engine.dispose()
    assert "ready ['circle', 'square', 'triangle', 'star']" in printed
    assert "succeeded completed" in printed
    assert "verdict:" in printed


def test_a_term_of_your_own(tmp_path):
    printed = run(code_of("custom_term.ipynb", EPOCHS=1, TRAIN=8, VAL=2), tmp_path)
    names = [line.rpartition(" ")[0] for line in printed.splitlines()[-2:]]
    assert names == ["richness", "squared richness"]
