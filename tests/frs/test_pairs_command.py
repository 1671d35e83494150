"""`python -m frs train` of a spec with a baseline: pairs of runs, then their comparison."""

import json
from pathlib import Path

from test_engine_command import frs, written

from frs.evaluation.report import Report


def test_a_baseline_is_trained_too_and_compared_and_done_runs_are_not_repeated(
    tmp_path: Path, data: Path, models: Path
) -> None:
    spec = written(tmp_path, baseline=True, schedule={"seed": 3, "max_steps": 2})
    command = ["train", spec, "--data", data, "--models", models, "--workdir", tmp_path / "run"]
    done = frs(*command)
    assert done.returncode == 0, done.stderr
    assert "student alone" in done.stdout and "Verdict" in done.stdout
    report = Report.model_validate_json((tmp_path / "run" / "report.json").read_bytes())
    assert report.status == "complete" and report.comparison is not None
    assert [pair.seed for pair in report.comparison.pairs] == [3]
    journals = [tmp_path / "run" / f"{role}-seed3" / "events.jsonl" for role in ("student", "baseline")]
    assert json.loads(journals[1].read_text().splitlines()[-1])["status"] == "succeeded"
    before = [journal.read_text() for journal in journals]
    assert frs(*command).returncode == 0
    assert [journal.read_text() for journal in journals] == before


def test_runs_that_are_none_are_refused_in_a_sentence(tmp_path: Path) -> None:
    done = frs("compare", "--student", tmp_path, "--baseline", tmp_path)
    assert done.returncode == 2 and "detections_unusable" in done.stderr and "Traceback" not in done.stderr
