"""`python -m frs`, started by a user or by a worker."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import described, job
from typer.testing import CliRunner, Result
from waiting import alive, until

from frs import events
from frs.cli.main import app
from frs.resolved import resolve
from frs.spec import JobSpec

FRS = [sys.executable, "-m", "frs"]


def frs(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*FRS, *map(str, arguments)], capture_output=True, text=True, check=False)


def frs_in_this_process(*arguments: object) -> Result:
    """Run a command that ends before it imports torch."""
    return CliRunner().invoke(app, [*map(str, arguments)])


def write_spec(tmp_path: Path, **changes: Any) -> Path:
    (tmp_path / "spec.json").write_text(json.dumps(job(**changes)))
    return tmp_path / "spec.json"


def test_a_spec_is_trained_and_its_events_are_logged(tmp_path: Path, data: Path, models: Path) -> None:
    spec = write_spec(tmp_path, name="mine")
    run = tmp_path / "run"
    completed = frs(
        "train", spec, "--data", data, "--models", models, "--workdir", run, "--set", "schedule.max_steps=2"
    )
    assert completed.returncode == 0, completed.stderr
    assert "succeeded" in completed.stdout and "student, epoch 1: mAP" in completed.stdout
    emitted = [events.parse(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert isinstance(emitted[-1], events.Outcome) and emitted[-1].status == "succeeded"
    assert {path.suffix for path in (run / "student").iterdir()} == {".pth", ".py", ".safetensors"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("schedule.epochs=0", "schedule.epochs"),
        ("nonsense=1", "nonsense"),
        ("dataset=absent", "dataset_not_found"),
        ("dataset=../tiny", "dataset"),
        ("student.init.weights=absent.pth", "weights_not_found"),
        ("no equals sign", "KEY=VALUE"),
    ],
)
def test_an_invalid_spec_is_rejected_with_a_message(
    tmp_path: Path, data: Path, models: Path, change: str, message: str
) -> None:
    spec = write_spec(tmp_path)
    result = frs_in_this_process("train", spec, "--data", data, "--models", models, "--set", change)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert message in result.stderr


def test_an_unknown_spec_name_lists_the_recipes() -> None:
    result = frs_in_this_process("train", "nothing.yaml")
    assert result.exit_code == 2 and "gfl_r101_r50_1x" in result.stderr


def test_the_commands_start_without_torch() -> None:
    program = "import sys, frs.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


def test_check_prints_the_issues_of_a_split(data: Path, tmp_path: Path) -> None:
    split = data / "tiny" / "val", data / "tiny" / "annotations" / "instances_val.json"
    assert frs_in_this_process("check", *split).exit_code == 0
    content = json.loads(split[1].read_text())
    content["annotations"][0]["bbox"][3] = 0
    (tmp_path / "bad.json").write_text(json.dumps(content))
    result = frs_in_this_process("check", split[0], tmp_path / "bad.json")
    assert result.exit_code == 1 and "box_empty" in result.stdout


def start_trainer(tmp_path: Path, data: Path, models: Path, **changes: Any) -> tuple[subprocess.Popen[bytes], int]:
    """Start a trainer with its events on a pipe; return the process and the pipe's read end."""
    (tmp_path / "resolved.json").write_text(
        resolve(JobSpec.model_validate(job(**changes)), data, models).model_dump_json()
    )
    reader, writer = os.pipe()
    workdir = tmp_path / "work"
    workdir.mkdir(exist_ok=True)
    python = [sys.executable, "-u", "-X", "faulthandler", "-m", "frs"]
    command = [*python, "train", "--spec", tmp_path / "resolved.json", "--workdir", workdir, "--events-fd", str(writer)]
    process = subprocess.Popen(command, pass_fds=[writer], env=os.environ | {"FRS_PARENT_PID": str(os.getpid())})
    os.close(writer)
    return process, reader


def read_until(reader: int, kind: type[Any]) -> list[events.Event]:
    emitted: list[events.Event] = []
    with os.fdopen(os.dup(reader), "rb", buffering=0) as lines:  # a buffer would consume lines of the next call
        for line in lines:
            emitted.append(events.parse(line))
            if isinstance(emitted[-1], kind):
                break
    return emitted


def test_sigterm_leaves_a_checkpoint_and_exits_with_75(tmp_path: Path, data: Path, models: Path) -> None:
    process, reader = start_trainer(tmp_path, data, models, schedule={"epochs": 1000, "evaluate_every": 1000})
    emitted = read_until(reader, events.Metrics)
    process.send_signal(signal.SIGTERM)
    emitted += read_until(reader, events.Outcome)
    assert process.wait(30) == 75
    assert emitted[-1].status == "interrupted"  # type: ignore[union-attr]
    last_step = max(event.step for event in emitted if isinstance(event, events.Metrics))
    checkpoints = [event for event in emitted if isinstance(event, events.Checkpoint)]
    assert checkpoints[-1].step == last_step


def test_a_failure_is_an_outcome_with_an_error_code(tmp_path: Path, data: Path, models: Path) -> None:
    process, reader = start_trainer(tmp_path, data, models, distillation={"accept_weak_teacher": False})
    [*_, outcome] = read_until(reader, events.Outcome)
    assert process.wait(30) == 1
    assert isinstance(outcome, events.Outcome) and outcome.error is not None
    assert (outcome.end_reason, outcome.error.code) == ("teacher_refused", "teacher_not_competent")


def test_a_trainer_ends_with_its_parent(tmp_path: Path, data: Path, models: Path) -> None:
    spec = job(teacher=None, kind="train", student=described(), schedule={"epochs": 10_000, "evaluate_every": 10_000})
    (tmp_path / "resolved.json").write_text(resolve(JobSpec.model_validate(spec), data, models).model_dump_json())
    parent = f"""
import os, subprocess, sys, time
r, w = os.pipe()
child = subprocess.Popen({FRS!r} + ["train", "--spec", "resolved.json", "--workdir", ".", "--events-fd", str(w)],
    pass_fds=[w], env=os.environ | {{"FRS_PARENT_PID": str(os.getpid())}})
os.read(r, 1)
print(child.pid, flush=True)
time.sleep(100)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    trainer = int(process.stdout.readline())
    process.kill()
    process.wait()
    until(lambda: not alive(trainer))


def plan(tmp_path: Path, data: Path, models: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return frs("plan", write_spec(tmp_path), "--data", data, "--models", models, *arguments)


def test_a_plan_prints_tables_or_one_object_and_writes_nothing(tmp_path: Path, data: Path, models: Path) -> None:
    completed = plan(tmp_path, data, models)
    assert completed.returncode == 0, completed.stderr
    assert "teacher_mAP" in completed.stdout and "8 steps, 2 epochs" in completed.stdout
    completed = plan(tmp_path, data, models, "--json", "--set", "distillation.accept_weak_teacher=false")
    assert completed.returncode == 1
    assert json.loads(completed.stdout)["checks"][-1]["code"] == "teacher_not_competent"
    assert [path.name for path in tmp_path.iterdir()] == ["spec.json"]


@pytest.mark.parametrize("change", ["schedule.epochs=0", "student.config=mmdet::gfl/nothing.py"])
def test_the_plan_of_an_invalid_spec_exits_with_2(tmp_path: Path, data: Path, models: Path, change: str) -> None:
    assert plan(tmp_path, data, models, "--set", change).returncode == 2
