"""Jobs in containers, and what happens to them when these die, are restarted, taken down, wiped and restored."""

import hashlib
import re
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from stack import Stack, answers, run, until

pytestmark = pytest.mark.docker


def test_a_job_on_bccd_distils_and_its_student_is_the_one_announced(stack: Stack):
    job_id = stack.submit()
    job = stack.until_ended(job_id)
    assert job["status"] == "succeeded", stack.logs(job_id)
    [student] = [row for row in stack.client.each(f"/jobs/{job_id}/checkpoints") if "last" in row["labels"]]
    assert downloaded(stack, student["id"]) == student["sha256"]
    assert "not found" not in stack.logs(job_id), "something was looked for that the image does not hold"


def test_after_kill_9_the_worker_comes_back_and_the_job_succeeds(stack: Stack):
    job_id = stack.submit(schedule__max_steps=300)
    stack.until_step(job_id, 15)
    stack.inside("worker", "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)")
    job = stack.until_ended(job_id)
    assert job["status"] == "succeeded" and job["attempt"] == 2, stack.logs(job_id)
    assert stack.inspect("worker")["RestartCount"] == 1
    assert steps_told(stack, job_id) == list(range(1, 301))


def test_of_two_workers_one_is_killed_and_the_other_finishes_its_job(stack: Stack):
    stack.up("--scale", "worker=2")
    try:
        job_id = stack.submit(schedule__max_steps=300)
        stack.until_step(job_id, 15)
        [holder] = [row["host"] for row in stack.client.each("/workers") if job_id in row["job_ids"]]
        run(["docker", "kill", holder])
        job = stack.until_ended(job_id)
        assert job["status"] == "succeeded" and job["attempt"] == 2, stack.logs(job_id)
        assert steps_told(stack, job_id) == list(range(1, 301))
    finally:
        stack.up("--scale", "worker=1")


def test_everything_around_a_job_is_restarted_and_its_events_have_no_gap(stack: Stack):
    job_id = stack.submit(schedule__max_steps=100_000)
    with listening(stack, job_id) as heard:
        for service in ("redis", "postgres", "api"):
            stack.until_step(job_id, stack.step(job_id) + 20)
            run(["docker", "restart", stack.containers(service)[0]])
            until(lambda: answers(f"{stack.url}/health/ready"), 60)
        steps = stack.step(job_id) + 20
        stack.until_step(job_id, steps)
        stack.client.post(f"/jobs/{job_id}/stop")  # ends at the next step, and succeeds
        job = stack.until_ended(job_id)
    assert job["status"] == "succeeded" and job["attempt"] == 1, stack.logs(job_id)
    stored = [row["seq"] for row in stack.client.each(f"/jobs/{job_id}/events")]
    numbers = [number for number in heard if number is not None]
    assert numbers == list(range(1, max(stored) + 1))
    told = steps_told(stack, job_id)
    assert told == list(range(1, len(told) + 1)) and len(told) > steps


def test_down_and_up_loses_nothing(stack: Stack):
    before = everything(stack)
    assert len(before) >= 1
    stack.compose("down", "--timeout", "30")
    stack.up()
    assert everything(stack) == before


def test_backup_wipe_and_restore_loses_nothing(stack_with: Callable[..., Stack], tmp_path: Path):
    stack = stack_with()
    stack.add_bccd()
    finished, running = stack.submit(schedule__max_steps=20), stack.submit(schedule__max_steps=100_000)
    stack.until_ended(finished)
    stack.until_step(running, 30)
    stack.backup("backup", tmp_path / "monday")
    before = everything(stack, finished)
    stack.compose("down", "--volumes", "--timeout", "5")
    stack.backup("restore", tmp_path / "monday")
    stack.until_healthy()
    assert everything(stack, finished) == before
    for row in stack.client.each(f"/jobs/{running}/checkpoints"):
        assert row["attempt"] == 2 or downloaded(stack, row["id"]) == row["sha256"], "a row without its file"
    until(lambda: stack.job(running)["attempt"] == 2, 180)
    until(lambda: rewound_to(stack, running)[1:] != [], 180, lambda: stack.logs(running))
    assert rewound_to(stack, running)[1] >= 20, "it goes on from a checkpoint of the backup"


def test_while_a_job_prunes_its_checkpoints_a_backup_has_all_that_its_rows_name(stack: Stack, tmp_path: Path):
    job_id = stack.submit(schedule__max_steps=100_000, schedule__checkpoint_every=1)
    stack.until_step(job_id, 5)
    stack.backup("backup", tmp_path / "busy")
    stack.client.post(f"/jobs/{job_id}/cancel")
    stack.until_ended(job_id)
    with tarfile.open(tmp_path / "busy" / "artifacts.tar") as archive:
        kept = set(archive.getnames())
    named = keys_in(stack, tmp_path / "busy" / "database.dump")
    assert any(key.startswith(f"{job_id}/checkpoints/") for key in named)
    assert named - kept == set()


def test_a_damaged_backup_changes_nothing(stack: Stack, tmp_path: Path):
    stack.backup("backup", tmp_path / "tuesday")
    with (tmp_path / "tuesday" / "database.dump").open("r+b") as file:
        file.seek(100)
        file.write(b"damage")
    with pytest.raises(AssertionError, match="damaged; nothing was changed"):
        stack.backup("restore", tmp_path / "tuesday")
    assert answers(f"{stack.url}/health/ready")


def keys_in(stack: Stack, dump: Path) -> set[str]:
    """Of the files that its checkpoints' rows name."""
    with dump.open("rb") as file:
        command = ["docker", "exec", "--interactive", stack.containers("postgres")[0]]
        rows = run([*command, "pg_restore", "--data-only", "--table=checkpoints", "--file=-"], stdin=file)
    return set(re.findall(r"\b(job_\w+/checkpoints/[\w.]+)", rows))


def rewound_to(stack: Stack, job_id: str) -> list[int]:
    events = stack.client.each(f"/jobs/{job_id}/events")
    return [row["data"]["to_step"] for row in events if row["type"] == "rewound"]


def everything(stack: Stack, *job_ids: str) -> dict[str, Any]:
    """Of these jobs, or of all that have ended: rows, metrics, events, and the hash of every file as it is served."""
    ids = job_ids or [row["id"] for row in stack.client.each("/jobs") if row["is_terminal"]]
    return {job_id: _all_of(stack, job_id) for job_id in ids}


def _all_of(stack: Stack, job_id: str) -> dict[str, Any]:
    checkpoints = list(stack.client.each(f"/jobs/{job_id}/checkpoints"))
    return {
        "job": stack.job(job_id),
        "metrics": stack.client.get(f"/jobs/{job_id}/metrics"),
        "events": list(stack.client.each(f"/jobs/{job_id}/events")),
        "checkpoints": checkpoints,
        "contents": {row["id"]: downloaded(stack, row["id"]) for row in checkpoints},
    }


def downloaded(stack: Stack, checkpoint_id: str) -> str:
    """The sha256 of what is served."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "content"
        stack.client.download(f"/checkpoints/{checkpoint_id}/content", target)
        return hashlib.sha256(target.read_bytes()).hexdigest()


def steps_told(stack: Stack, job_id: str) -> list[int]:
    [series] = stack.client.get(f"/jobs/{job_id}/metrics", keys="train/loss", max_points=5000)["series"]
    return [int(step) for step in series["x"]]


@contextmanager
def listening(stack: Stack, job_id: str) -> Iterator[list[int | None]]:
    """Numbers of the events that a client of the stream has heard, to the end of the job."""
    heard: list[int | None] = []
    client = stack.client
    listener = threading.Thread(target=lambda: heard.extend(event.id for event in client.events(job_id)), daemon=True)
    listener.start()
    yield heard
    listener.join(60)
    assert not listener.is_alive()
