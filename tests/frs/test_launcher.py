"""`python -m frs train` on two processes, which appear as one trainer however they end."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from test_engine_command import frs, frs_in_this_process, read_until, start_trainer, write_spec
from waiting import alive, until

from frs import events
from frs.dataset.shapes.drawing import draw_dataset
from frs.detectors import weights
from frs.engine.checkpoints import random_states_in

TWO = {"devices": 0, "processes": 2}
LONG = {"epochs": 1000, "evaluate_every": 1000, "checkpoint_every": 1000}


def ranks(launcher: int) -> list[int]:
    """Return the process ids of rank 0 and rank 1."""
    tasks = Path(f"/proc/{launcher}/task").iterdir()
    children = sorted(int(child) for task in tasks for child in (task / "children").read_text().split())
    return [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def assert_gone(*pids: int) -> None:
    until(lambda: not any(map(alive, pids)), 30)


def remaining_events(reader: int) -> list[events.Event]:
    return read_until(reader, type(None))


def outcomes(emitted: list[events.Event]) -> list[events.Outcome]:
    return [event for event in emitted if isinstance(event, events.Outcome)]


def last_step(emitted: list[events.Event]) -> int:
    return max((event.step for event in emitted if isinstance(event, events.Metrics)), default=0)


def start_on_two_processes(tmp_path: Path, data: Path, models: Path) -> tuple[subprocess.Popen[bytes], int, list[int]]:
    """Start a trainer on two processes and wait for its first step; return it, its events and pids process ids."""
    process, reader = start_trainer(tmp_path, data, models, resources=TWO, schedule=LONG)
    read_until(reader, events.Metrics)
    return process, reader, ranks(process.pid)


def test_two_processes_emit_the_same_series_as_one(tmp_path: Path, data: Path, models: Path) -> None:
    keys = {}
    for number in (1, 2):
        run = tmp_path / str(number)
        spec = write_spec(tmp_path, resources=TWO | {"processes": number}, schedule={"max_steps": 2})
        relative = os.path.relpath(run)  # the default folder is relative too
        completed = frs("train", spec, "--data", data, "--models", models, "--workdir", relative)
        assert completed.returncode == 0, completed.stderr
        emitted = [events.parse(line) for line in (run / "events.jsonl").read_text().splitlines()]
        assert [outcome.status for outcome in outcomes(emitted)] == ["succeeded"]
        assert isinstance(emitted[-1], events.Outcome)
        keys[number] = [(e.step, sorted(e.values)) for e in emitted if isinstance(e, events.Metrics)]
        assert not [path.name for path in run.iterdir() if path.name.startswith(".")]
    assert keys[1] == keys[2]


def test_sigterm_stops_both_processes_at_one_step_and_they_resume_from_it(
    tmp_path: Path, data: Path, models: Path
) -> None:
    process, reader, _ = start_on_two_processes(tmp_path, data, models)
    process.send_signal(signal.SIGTERM)
    emitted = remaining_events(reader)
    assert process.wait(60) == 75
    assert [outcome.status for outcome in outcomes(emitted)] == ["interrupted"]
    [checkpoint] = (tmp_path / "work" / "checkpoints").iterdir()
    content = weights.read(checkpoint)
    assert content["step"] == (last_step(emitted) or 1) and len(random_states_in(content)) == 2

    process, reader = start_trainer(tmp_path, data, models, resources=TWO, schedule=LONG)
    emitted = read_until(reader, events.Metrics)
    assert [event.to_step for event in emitted if isinstance(event, events.Rewound)] == [content["step"]]
    pids = ranks(process.pid)
    assert len(pids) == 2
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert_gone(*pids)


def test_a_killed_process_ends_the_others_and_the_trainer_by_its_signal(
    tmp_path: Path, data: Path, models: Path
) -> None:
    process, reader, (first, second) = start_on_two_processes(tmp_path, data, models)
    os.kill(second, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert outcomes(remaining_events(reader)) == []
    assert_gone(first, second)


@pytest.mark.slow
def test_a_stalled_trainer_ends_with_all_its_processes(tmp_path: Path, data: Path, models: Path) -> None:
    process, reader, pids = start_on_two_processes(tmp_path, data, models)
    process.send_signal(signal.SIGABRT)
    assert process.wait(60) == -signal.SIGABRT
    assert outcomes(remaining_events(reader)) == []
    assert_gone(*pids)


@pytest.mark.slow
def test_the_failure_of_one_process_is_the_jobs_only_outcome(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "data"
    draw_dataset(folder / "tiny", train=14, val=2, size=96)
    process, reader, pids = start_on_two_processes(tmp_path, folder, models)
    for number, image in enumerate(sorted((folder / "tiny" / "train").iterdir())):
        if number:  # keep one; any process may be the first to read another
            image.unlink()
    [outcome] = outcomes(remaining_events(reader))
    assert process.wait(60) == 1
    assert outcome.error is not None and (outcome.end_reason, outcome.error.code) == ("bad_dataset", "bad_dataset")
    assert_gone(*pids)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["resources.processes=3"], "it must be divisible by their number"),
        (["resources.processes=2", "resources.devices=1"], "applies to CPU training"),
        (["resources.processes=17"], "resources.processes"),
    ],
)
def test_invalid_numbers_of_processes_are_rejected(tmp_path: Path, changes: list[str], message: str) -> None:
    sets = [word for change in changes for word in ("--set", change)]
    result = frs_in_this_process("train", write_spec(tmp_path), *sets)
    assert result.exit_code == 2 and message in " ".join(result.stderr.split())


def test_more_gpus_than_available_are_an_error(tmp_path: Path, data: Path, models: Path) -> None:
    completed = frs(
        "train", write_spec(tmp_path, resources={"devices": 64}, schedule={"batch_size": 64}), "--json", "--data", data,
        "--models", models, "--workdir", tmp_path / "run",
    )  # fmt: skip
    outcome = json.loads(completed.stdout.splitlines()[-1])
    assert completed.returncode == 1 and outcome["error"]["code"] == "device_unavailable"
