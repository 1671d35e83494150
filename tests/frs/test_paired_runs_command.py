"""`python -m frs train` with a baseline: pairs of runs, then their comparison."""

import json
from pathlib import Path

from test_engine_command import frs, frs_in_this_process, write_spec

from frs.evaluation.report import Report
from frs.events import Outcome


def test_student_and_baseline_are_trained_and_compared_and_finished_runs_are_not_repeated(
    tmp_path: Path, data: Path, models: Path
) -> None:
    spec = write_spec(tmp_path, baseline=True, schedule={"seed": 3, "max_steps": 2})
    command = ["train", spec, "--data", data, "--models", models, "--workdir", tmp_path / "run"]
    completed = frs(*command)
    assert completed.returncode == 0, completed.stderr
    assert "student alone" in completed.stdout and "Verdict" in completed.stdout
    report = Report.model_validate_json((tmp_path / "run" / "report.json").read_bytes())
    assert report.status == "complete" and report.comparison is not None
    assert [pair.seed for pair in report.comparison.pairs] == [3]
    event_logs = [tmp_path / "run" / f"{role}-seed3" / "events.jsonl" for role in ("student", "baseline")]
    assert json.loads(event_logs[1].read_text().splitlines()[-1])["status"] == "succeeded"
    before = [event_log.read_text() for event_log in event_logs]
    assert frs(*command).returncode == 0
    assert [event_log.read_text() for event_log in event_logs] == before


def test_folders_without_a_run_are_rejected_with_a_message(tmp_path: Path) -> None:
    result = frs_in_this_process("compare", "--student", tmp_path, "--baseline", tmp_path)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert "detections_unusable" in result.stderr


def test_a_finished_training_is_not_touched_by_another_spec_in_its_folder(
    tmp_path: Path, data: Path, models: Path
) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    finished = {
        "spec.json": "{}",
        "events.jsonl": Outcome(status="succeeded", end_reason="completed").model_dump_json(),
    }
    for name, content in finished.items():
        (folder / name).write_text(content)
    spec = write_spec(tmp_path, schedule={"max_steps": 2})
    result = frs_in_this_process("train", spec, "--data", data, "--models", models, "--workdir", folder)
    assert result.exit_code == 2
    assert "checkpoint_unusable" in result.stderr
    assert {name: (folder / name).read_text() for name in finished} == finished
