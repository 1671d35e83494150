"""`python -m frs train` on two processes: one trainer to whoever started it, however it ends."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from test_engine_command import frs, read_until, start_as_a_worker, written

from frs import events
from frs.detectors import weights
from frs.engine.checkpoints import random_states_in

TWO = {"devices": 0, "processes": 2}
LONG = {"epochs": 1000, "evaluate_every": 1000, "checkpoint_every": 1000}


def ranks(launcher: int) -> list[int]:
    """Process ids of rank 0 and rank 1."""
    tasks = Path(f"/proc/{launcher}/task").iterdir()
    children = sorted(int(child) for task in tasks for child in (task / "children").read_text().split())
    return [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def assert_gone(*pids: int) -> None:
    until = time.monotonic() + 30
    while alive := [pid for pid in pids if running(pid)]:
        assert time.monotonic() < until, f"{alive} live on"
        time.sleep(0.1)


def running(pid: int) -> bool:
    """A process that nobody has reaped yet does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def rest(reader: int) -> list[events.Event]:
    return read_until(reader, type(None))


def outcomes(told: list[events.Event]) -> list[events.Outcome]:
    return [event for event in told if isinstance(event, events.Outcome)]


def last_step(told: list[events.Event]) -> int:
    return max((event.step for event in told if isinstance(event, events.Metrics)), default=0)


def started(tmp_path: Path, data: Path, models: Path) -> tuple[subprocess.Popen[bytes], int, list[int]]:
    """A trainer on two processes that has told a step; its events, and both processes."""
    process, reader = start_as_a_worker(tmp_path, data, models, resources=TWO, schedule=LONG)
    read_until(reader, events.Metrics)
    return process, reader, ranks(process.pid)


def test_two_processes_tell_the_same_series_as_one(tmp_path: Path, data: Path, models: Path) -> None:
    keys = {}
    for number in (1, 2):
        run = tmp_path / str(number)
        spec = written(tmp_path, resources=TWO | {"processes": number}, schedule={"max_steps": 2})
        relative = os.path.relpath(run)  # as the folder is by default
        done = frs("train", spec, "--data", data, "--models", models, "--workdir", relative)
        assert done.returncode == 0, done.stderr
        told = [events.parse(line) for line in (run / "events.jsonl").read_text().splitlines()]
        assert [outcome.status for outcome in outcomes(told)] == ["succeeded"] and isinstance(told[-1], events.Outcome)
        keys[number] = [(e.step, sorted(e.values)) for e in told if isinstance(e, events.Metrics)]
        assert not [path.name for path in run.iterdir() if path.name.startswith(".")]
    assert keys[1] == keys[2]


def test_sigterm_stops_both_at_one_step_and_they_go_on_from_there(tmp_path: Path, data: Path, models: Path) -> None:
    process, reader, _ = started(tmp_path, data, models)
    process.send_signal(signal.SIGTERM)
    told = rest(reader)
    assert process.wait(60) == 75
    assert [outcome.status for outcome in outcomes(told)] == ["interrupted"]
    [checkpoint] = (tmp_path / "work" / "checkpoints").iterdir()
    content = weights.read(checkpoint)
    assert content["step"] == (last_step(told) or 1) and len(random_states_in(content)) == 2

    process, reader = start_as_a_worker(tmp_path, data, models, resources=TWO, schedule=LONG)
    told = read_until(reader, events.Metrics)
    assert [event.to_step for event in told if isinstance(event, events.Rewound)] == [content["step"]]
    both = ranks(process.pid)
    assert len(both) == 2
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert_gone(*both)


def test_a_killed_process_takes_the_others_along_and_the_trainer_ends_as_killed(
    tmp_path: Path, data: Path, models: Path
) -> None:
    process, reader, (first, second) = started(tmp_path, data, models)
    os.kill(second, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert outcomes(rest(reader)) == []
    assert_gone(first, second)


def test_a_trainer_taken_for_hung_ends_with_all_its_processes(tmp_path: Path, data: Path, models: Path) -> None:
    process, reader, both = started(tmp_path, data, models)
    process.send_signal(signal.SIGABRT)
    assert process.wait(60) == -signal.SIGABRT
    assert outcomes(rest(reader)) == []
    assert_gone(*both)


def test_one_processs_failure_is_the_jobs_and_told_once(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "data"
    frs("shapes", folder / "tiny", "--train", 14, "--val", 2, "--size", 96)
    process, reader, both = started(tmp_path, folder, models)
    for number, image in enumerate(sorted((folder / "tiny" / "train").iterdir())):
        if number:  # all but one: whichever process is the first to want another
            image.unlink()
    [outcome] = outcomes(rest(reader))
    assert process.wait(60) == 1
    assert outcome.error is not None and (outcome.end_reason, outcome.error.code) == ("bad_dataset", "bad_dataset")
    assert_gone(*both)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["resources.processes=3"], "it must be divisible by that"),
        (["resources.processes=2", "resources.devices=1"], "is for the CPU"),
        (["resources.processes=17"], "resources.processes"),
    ],
)
def test_processes_that_cannot_be_are_refused(tmp_path: Path, changes: list[str], said: str) -> None:
    sets = [word for change in changes for word in ("--set", change)]
    done = frs("train", written(tmp_path), *sets)
    assert done.returncode == 2 and said in " ".join(done.stderr.split())


def test_more_gpus_than_there_are_are_refused(tmp_path: Path, data: Path, models: Path) -> None:
    done = frs(
        "train", written(tmp_path, resources={"devices": 64}, schedule={"batch_size": 64}), "--json", "--data", data,
        "--models", models, "--workdir", tmp_path / "run",
    )  # fmt: skip
    told = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1 and told["error"]["code"] == "device_unavailable"
