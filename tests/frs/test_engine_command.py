"""`python -m frs`: the engine as a person or a worker starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import described, job

from frs import events
from frs.resolved import resolve
from frs.spec import JobSpec

FRS = [sys.executable, "-m", "frs"]


def frs(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*FRS, *map(str, arguments)], capture_output=True, text=True, check=False, **options)


def written(tmp_path: Path, **changes: Any) -> Path:
    (tmp_path / "spec.json").write_text(json.dumps(job(**changes)))
    return tmp_path / "spec.json"


def test_a_spec_is_trained_and_everything_told_is_kept(tmp_path: Path, data: Path, models: Path) -> None:
    spec = written(tmp_path, name="mine")
    run = tmp_path / "run"
    done = frs("train", spec, "--data", data, "--models", models, "--workdir", run, "--set", "schedule.max_steps=2")
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout and "student, epoch 1: mAP" in done.stdout
    told = [events.parse(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert isinstance(told[-1], events.Outcome) and told[-1].status == "succeeded"
    assert {path.suffix for path in (run / "student").iterdir()} == {".pth", ".py", ".safetensors"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("schedule.epochs=0", "schedule.epochs"),
        ("nonsense=1", "nonsense"),
        ("dataset=absent", "dataset_not_found"),
        ("dataset=../tiny", "dataset"),
        ("student.init.weights=absent.pth", "weights_not_found"),
        ("no equals sign", "KEY=VALUE"),
    ],
)
def test_a_bad_spec_is_refused_in_a_sentence(tmp_path: Path, data: Path, models: Path, change: str, said: str) -> None:
    done = frs("train", written(tmp_path), "--data", data, "--models", models, "--set", change)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_spec_that_is_neither_file_nor_recipe_names_the_recipes() -> None:
    done = frs("train", "nothing.yaml")
    assert done.returncode == 2 and "gfl_r101_r50_1x" in done.stderr


def test_check_tells_what_is_wrong_and_needs_no_torch(data: Path, tmp_path: Path) -> None:
    split = data / "tiny" / "val", data / "tiny" / "annotations" / "instances_val.json"
    assert frs("check", *split).returncode == 0
    content = json.loads(split[1].read_text())
    content["annotations"][0]["bbox"][3] = 0
    (tmp_path / "bad.json").write_text(json.dumps(content))
    done = frs("check", split[0], tmp_path / "bad.json")
    assert done.returncode == 1 and "box_empty" in done.stdout


def start_as_a_worker(tmp_path: Path, data: Path, models: Path, **changes: Any) -> tuple[subprocess.Popen[bytes], int]:
    """A trainer with its events on a pipe, and that pipe's reading end."""
    (tmp_path / "resolved.json").write_text(
        resolve(JobSpec.model_validate(job(**changes)), data, models).model_dump_json()
    )
    reader, writer = os.pipe()
    workdir = tmp_path / "work"
    workdir.mkdir(exist_ok=True)
    faults = [sys.executable, "-u", "-X", "faulthandler", "-m", "frs"]
    command = [*faults, "train", "--spec", tmp_path / "resolved.json", "--workdir", workdir, "--events-fd", str(writer)]
    process = subprocess.Popen(command, pass_fds=[writer], env=os.environ | {"FRS_PARENT_PID": str(os.getpid())})
    os.close(writer)
    return process, reader


def read_until(reader: int, kind: type[Any]) -> list[events.Event]:
    told: list[events.Event] = []
    with os.fdopen(os.dup(reader), "rb", buffering=0) as lines:  # nothing is read that the next call should find
        for line in lines:
            told.append(events.parse(line))
            if isinstance(told[-1], kind):
                break
    return told


def test_sigterm_leaves_a_checkpoint_and_asks_to_be_tried_again(tmp_path: Path, data: Path, models: Path) -> None:
    process, reader = start_as_a_worker(tmp_path, data, models, schedule={"epochs": 1000, "evaluate_every": 1000})
    told = read_until(reader, events.Metrics)
    process.send_signal(signal.SIGTERM)
    told += read_until(reader, events.Outcome)
    assert process.wait(30) == 75
    assert told[-1].status == "interrupted"  # type: ignore[union-attr]
    last_step = max(event.step for event in told if isinstance(event, events.Metrics))
    checkpoints = [event for event in told if isinstance(event, events.Checkpoint)]
    assert checkpoints[-1].step == last_step


def test_a_failure_is_an_outcome_with_its_code(tmp_path: Path, data: Path, models: Path) -> None:
    process, reader = start_as_a_worker(tmp_path, data, models, distillation={"accept_weak_teacher": False})
    [*_, outcome] = read_until(reader, events.Outcome)
    assert process.wait(30) == 1
    assert isinstance(outcome, events.Outcome) and outcome.error is not None
    assert (outcome.end_reason, outcome.error.code) == ("teacher_refused", "teacher_not_competent")


def test_a_trainer_dies_with_whoever_started_it(tmp_path: Path, data: Path, models: Path) -> None:
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
    for _ in range(100):
        if not Path(f"/proc/{trainer}").exists():
            return
        time.sleep(0.1)
    pytest.fail("the trainer outlived its parent")
