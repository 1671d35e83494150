"""Jobs in containers that crash or are restarted, removed, backed up and restored."""

import hashlib
import re
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from stack import Stack, answers, inspect, run
from waiting import until

pytestmark = pytest.mark.docker


def test_a_job_on_bccd_succeeds_and_its_student_has_the_reported_hash(stack: Stack):
    job_id = stack.submit()
    job = stack.wait_until_ended(job_id)
    assert job["status"] == "succeeded", stack.logs(job_id)
    [student] = [row for row in stack.client.each(f"/jobs/{job_id}/checkpoints") if "last" in row["labels"]]
    assert downloaded_sha256(stack, student) == student["sha256"]
    assert "not found" not in stack.logs(job_id), "the image lacks a file"


def test_a_student_is_exported_and_finds_objects_and_the_page_is_served(stack: Stack):
    job_id = stack.submit()
    export = stack.client.post(f"/jobs/{job_id}/exports")
    assert stack.wait_until_ended(job_id)["status"] == "succeeded", stack.logs(job_id)
    ended = stack.wait_until_ended(export["id"])
    assert ended["status"] == "succeeded", stack.logs(export["id"])
    [listed] = stack.client.get(f"/jobs/{job_id}/exports")["data"]
    assert [file["format"] for file in listed["report"]["files"]] == ["onnx", "onnx-int8"]
    image = sorted((stack.datasets / "bccd").rglob("*.jpg"))[0]
    answer = stack.client.upload(f"/jobs/{job_id}/predict", image, "image/jpeg", threshold=0)
    assert answer["results"][0]["role"] == "student"
    for path, expected in {"": b"<!DOCTYPE html>", "web/main.js": b"import"}.items():
        with urlopen(f"{stack.url}/{path}") as response:
            assert expected in response.read()


def test_after_kill_9_the_worker_restarts_and_the_job_succeeds(stack: Stack):
    job_id = stack.submit(schedule__max_steps=300)
    stack.wait_for_step(job_id, 15)
    stack.inside("worker", "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)")
    job = stack.wait_until_ended(job_id)
    assert job["status"] == "succeeded" and job["attempt"] == 2, stack.logs(job_id)
    assert stack.inspect("worker")["RestartCount"] == 1
    assert recorded_steps(stack, job_id) == list(range(1, 301))


def test_the_second_worker_finishes_the_job_of_a_killed_one(stack: Stack):
    stack.up("--scale", "worker=2")
    try:
        job_id = stack.submit(schedule__max_steps=300)
        stack.wait_for_step(job_id, 15)
        [holder] = [row["host"] for row in stack.client.each("/workers") if job_id in row["job_ids"]]
        run(["docker", "kill", holder])
        job = stack.wait_until_ended(job_id)
        assert job["status"] == "succeeded" and job["attempt"] == 2, stack.logs(job_id)
        assert recorded_steps(stack, job_id) == list(range(1, 301))
    finally:
        stack.up("--scale", "worker=1")


def test_the_event_stream_has_no_gap_when_redis_postgres_and_api_are_restarted(stack: Stack):
    job_id = stack.submit(schedule__max_steps=100_000)
    with record_stream(stack, job_id) as stream_numbers:
        for service in ("redis", "postgres", "api"):
            stack.wait_for_step(job_id, stack.step(job_id) + 20)
            run(["docker", "restart", stack.containers(service)[0]])
            until(lambda: answers(f"{stack.url}/health/ready"), 60)
        steps = stack.step(job_id) + 20
        stack.wait_for_step(job_id, steps)
        stack.client.post(f"/jobs/{job_id}/stop")  # the job succeeds after its next step
        job = stack.wait_until_ended(job_id)
    assert job["status"] == "succeeded" and job["attempt"] == 1, stack.logs(job_id)
    stored = [row["seq"] for row in stack.client.each(f"/jobs/{job_id}/events")]
    numbers = [number for number in stream_numbers if number is not None]
    assert numbers == list(range(1, max(stored) + 1))
    recorded = recorded_steps(stack, job_id)
    assert recorded == list(range(1, len(recorded) + 1)) and len(recorded) > steps


def test_down_and_up_loses_nothing(stack: Stack):
    before = snapshot(stack)
    assert len(before) >= 1
    stack.compose("down", "--timeout", "30")
    stack.up()
    assert snapshot(stack) == before


def test_three_downs_during_a_job_lose_no_step_and_end_no_attempt_as_lost(stack: Stack):
    job_id = stack.submit(schedule__max_steps=400)
    reached = []
    for number in range(1, 4):
        stack.wait_for_step(job_id, 60 * number)
        reached.append(stack.step(job_id))
        stack.compose("down")
        stack.up()
    job = stack.wait_until_ended(job_id)
    assert job["status"] == "succeeded" and job["attempt"] == 4, stack.logs(job_id)
    assert recorded_steps(stack, job_id) == list(range(1, 401))
    resumed = rewound_to(stack, job_id)[1:]
    assert all(after >= before for before, after in zip(reached, resumed, strict=True)), "an attempt lost steps"


def test_a_job_whose_last_worker_died_is_shown_as_waiting_within_90_s_and_can_be_cancelled(stack: Stack):
    job_id = stack.submit(schedule__max_steps=5000)
    stack.wait_for_step(job_id, 20)
    [name] = [worker["name"] for worker in stack.client.get("/workers")["data"]]
    for container in stack.containers("worker"):
        run(["docker", "kill", container])
    until(lambda: stack.job(job_id)["status"] == "queued", 90, lambda: str(stack.job(job_id)))
    assert "No worker is running." in wait_for_message(stack, job_id, "No worker is running.")
    assert stack.job(job_id)["progress"]["eta_seconds"] is None
    stack.client.post(f"/jobs/{job_id}/cancel", {})
    assert stack.job(job_id)["status"] == "cancelled"
    stack.compose("rm", "--force", "--stop", "worker")
    stack.up()
    until(lambda: stack.client.get("/workers")["data"], 60, lambda: stack.compose("ps"))
    assert [worker["name"] for worker in stack.client.get("/workers")["data"]] == [name], "its name is kept"


def wait_for_message(stack: Stack, job_id: str, message: str) -> str:
    """Wait until the job waits for that reason: a dead worker counts as alive for 60 s after its last registration."""

    def current() -> str:
        return str((stack.job(job_id)["status_reason"] or {}).get("message"))

    until(lambda: message in current(), 60, current)
    return current()


def test_redis_stops_in_order(stack: Stack):
    [redis] = stack.containers("redis")
    run(["docker", "stop", redis])
    try:
        assert inspect(redis)["State"]["ExitCode"] == 0, "SIGKILL after 10 s: Redis did not receive SIGTERM"
    finally:
        stack.up()


def test_backup_wipe_and_restore_loses_nothing(stack_with: Callable[..., Stack], tmp_path: Path):
    stack = stack_with()
    stack.add_bccd()
    finished, running = stack.submit(schedule__max_steps=20), stack.submit(schedule__max_steps=100_000)
    stack.wait_until_ended(finished)
    stack.wait_for_step(running, 30)
    stack.backup("backup", tmp_path / "monday")
    before = snapshot(stack, finished)
    stack.compose("down", "--volumes", "--timeout", "5")
    stack.backup("restore", tmp_path / "monday")
    stack.wait_until_healthy()
    assert snapshot(stack, finished) == before
    for row in stack.client.each(f"/jobs/{running}/checkpoints"):
        assert row["attempt"] == 2 or downloaded_sha256(stack, row) == row["sha256"], (
            "a checkpoint row without its file"
        )
    until(lambda: stack.job(running)["attempt"] == 2, 180)
    until(lambda: rewound_to(stack, running)[1:] != [], 180, lambda: stack.logs(running))
    assert rewound_to(stack, running)[1] >= 20, "the job continues from a checkpoint of the backup"


def test_a_backup_during_checkpoint_pruning_has_the_file_of_every_row(stack: Stack, tmp_path: Path):
    job_id = stack.submit(schedule__max_steps=100_000, schedule__checkpoint_every=1)
    stack.wait_for_step(job_id, 5)
    stack.backup("backup", tmp_path / "busy")
    stack.client.post(f"/jobs/{job_id}/cancel")
    stack.wait_until_ended(job_id)
    with tarfile.open(tmp_path / "busy" / "artifacts.tar") as archive:
        files = set(archive.getnames())
    keys = checkpoint_keys(stack, tmp_path / "busy" / "database.dump")
    assert any(key.startswith(f"{job_id}/checkpoints/") for key in keys)
    assert keys - files == set()


def test_a_damaged_backup_changes_nothing(stack: Stack, tmp_path: Path):
    stack.backup("backup", tmp_path / "tuesday")
    with (tmp_path / "tuesday" / "database.dump").open("r+b") as file:
        file.seek(100)
        file.write(b"damage")
    with pytest.raises(AssertionError, match="damaged; nothing was changed"):
        stack.backup("restore", tmp_path / "tuesday")
    assert answers(f"{stack.url}/health/ready")


def checkpoint_keys(stack: Stack, dump: Path) -> set[str]:
    """Return the artifact keys in the checkpoint rows of a database dump."""
    with dump.open("rb") as file:
        command = ["docker", "exec", "--interactive", stack.containers("postgres")[0]]
        rows = run([*command, "pg_restore", "--data-only", "--table=checkpoints", "--file=-"], stdin=file)
    return set(re.findall(r"\b(job_\w+/checkpoints/[\w.]+)", rows))


def rewound_to(stack: Stack, job_id: str) -> list[int]:
    events = stack.client.each(f"/jobs/{job_id}/events")
    return [row["data"]["to_step"] for row in events if row["type"] == "rewound"]


def snapshot(stack: Stack, *job_ids: str) -> dict[str, Any]:
    """Return rows, metrics, events and checkpoint hashes of these jobs, by default of all that have ended."""
    ids = job_ids or [row["id"] for row in stack.client.each("/jobs") if row["is_terminal"]]
    return {job_id: _job_snapshot(stack, job_id) for job_id in ids}


def _job_snapshot(stack: Stack, job_id: str) -> dict[str, Any]:
    checkpoints = list(stack.client.each(f"/jobs/{job_id}/checkpoints"))
    return {
        "job": stack.job(job_id),
        "metrics": stack.client.get(f"/jobs/{job_id}/metrics"),
        "events": list(stack.client.each(f"/jobs/{job_id}/events")),
        "checkpoints": checkpoints,
        "contents": {row["id"]: downloaded_sha256(stack, row) for row in checkpoints},
    }


def downloaded_sha256(stack: Stack, checkpoint: dict[str, Any]) -> str:
    """Return the SHA-256 of the downloaded checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "content"
        stack.client.download(f"/checkpoints/{checkpoint['id']}/content", target, checkpoint["sha256"])
        return hashlib.sha256(target.read_bytes()).hexdigest()


def recorded_steps(stack: Stack, job_id: str) -> list[int]:
    [series] = stack.client.get(f"/jobs/{job_id}/metrics", keys="train/loss", max_points=5000)["series"]
    return [int(step) for step in series["x"]]


@contextmanager
def record_stream(stack: Stack, job_id: str) -> Iterator[list[int | None]]:
    """Yield the list of event numbers that a stream client receives until the job has ended."""
    numbers: list[int | None] = []
    client = stack.client
    listener = threading.Thread(target=lambda: numbers.extend(event.id for event in client.events(job_id)), daemon=True)
    listener.start()
    yield numbers
    listener.join(60)
    assert not listener.is_alive()
