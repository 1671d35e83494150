"""Runs in W&B: the files of `wandb sync`, read back, and a package or server that does not answer."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from waiting import until
from worker_harness import WorkerHarness, in_background

from worker.tracking import job_tracking, wandb

KEY = SecretStr("0" * 40)
BLOCK, HEADER = 32768, 7
"""Of the files' format, LevelDB's log: blocks of records, each with a header of checksum, length and type."""


@pytest.fixture
def records():
    """Return a function that reads the records of all runs below the data folder."""
    pb2 = pytest.importorskip("wandb.proto.wandb_internal_pb2")

    def read(harness: WorkerHarness) -> list[Any]:
        paths = sorted((harness.settings.data / "wandb").rglob("*.wandb"))
        return [pb2.Record.FromString(data) for path in paths for data in payloads(path.read_bytes()[HEADER:])]

    return read


def payloads(content: bytes) -> Iterator[bytes]:
    position, data = 0, b""
    while position + HEADER <= len(content):
        if BLOCK - (position + HEADER) % BLOCK < HEADER:  # the rest of a block is padding; the file has its own header
            position += BLOCK - (position + HEADER) % BLOCK
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        data += content[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):  # the record is complete
            yield data
            data = b""


@pytest.fixture
def patient(monkeypatch):
    """Wait for the package, which takes seconds to start, however busy the machine is."""
    monkeypatch.setattr(job_tracking, "LAST_SECONDS", 60)
    monkeypatch.setattr(job_tracking, "END_SECONDS", 60)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(job_tracking, "LAST_SECONDS", 2)
    monkeypatch.setattr(job_tracking, "END_SECONDS", 0.3)


def package_processes(harness: WorkerHarness) -> list[Path]:
    """Return the processes that run the package: their home folder is below the data folder."""
    processes = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if str(harness.settings.data / "wandb").encode() in path.read_bytes():
                processes.append(path)
    return processes


def history(records: list[Any], key: str) -> list[tuple[int, float]]:
    points = []
    for record in records:
        if record.HasField("history"):
            values = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            if key in values:
                points.append((record.history.step.num, float(values[key])))
    return points


def test_without_a_key_a_run_is_written_for_wandb_sync(harness, records, patient):
    job_id = harness.submit({"name": "my job", "tags": ["", "a", "a"]}, steps=12)
    harness.supervisor(wandb_project="team/project").run()
    assert harness.job(job_id).status == "succeeded" and "W&B" not in "".join(harness.logs(job_id))
    written = records(harness)
    [run] = [record.run for record in written if record.HasField("run")]
    assert (run.run_id, run.display_name, run.project, run.entity) == (job_id, "my job", "project", "team")
    assert list(run.tags) == ["a"] and run.run_group == job_id
    config = {item.key or "/".join(item.nested_key): item.value_json for item in run.config.update}
    assert config["student.architecture"] == '"gfl"'
    assert history(written, "train/loss") == list(enumerate(harness.losses(job_id), 1))
    assert history(written, "val/bbox_mAP") == [(12, 0.5)]
    assert [record.exit.exit_code for record in written if record.HasField("exit")] == [0]
    assert [path.name for path in (harness.settings.data / "wandb").rglob("files/*")] == ["environ.json"]
    until(lambda: package_processes(harness) == [])


def test_an_interrupted_attempt_is_marked_as_preempted(harness, records, patient):
    harness.submit(steps=20, crash_at=13)
    harness.supervisor(wandb_project="project").run()
    written = records(harness)
    assert any(record.HasField("preempting") for record in written)
    assert [record.exit.exit_code for record in written if record.HasField("exit")] == [1]


def test_a_server_that_is_down_leaves_one_warning_and_no_process(harness, impatient):
    pytest.importorskip("wandb")
    job_id = harness.submit(steps=30, seconds=0.05)
    settings = {"wandb_project": "project", "wandb_api_key": KEY, "wandb_url": "http://127.0.0.1:9"}
    thread = in_background(harness.supervisor(**settings))
    until(lambda: package_processes(harness))
    thread.join()
    assert harness.job(job_id).status == "succeeded"
    [warning] = [message for message in harness.logs(job_id) if "W&B" in message]
    assert "has not taken" in warning and "FRS_WANDB_URL" in warning
    until(lambda: package_processes(harness) == [])


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import time; time.sleep(3600)", "has not taken"),
        ("print('garbage')", "its process has ended"),
        ("print('[1]', flush=True); import time; time.sleep(3600)", "has not taken"),
        ("raise SystemExit(1)", "its process has ended"),
    ],
)
def test_a_package_that_hangs_or_dies_leaves_one_warning(harness, impatient, monkeypatch, code, reason):
    monkeypatch.setattr(wandb, "COMMAND", (sys.executable, "-c", code))
    job_id = harness.submit(steps=10, seconds=0.05)
    harness.supervisor(wandb_project="project").run()
    assert harness.job(job_id).status == "succeeded"
    [warning] = [message for message in harness.logs(job_id) if "W&B" in message]
    assert reason in warning
    assert package_processes(harness) == []


def test_without_the_package_the_warning_names_the_next_step(harness, patient, monkeypatch):
    code = "import sys; sys.modules['wandb'] = None; from worker.tracking.wandb_process import main; main()"
    monkeypatch.setattr(wandb, "COMMAND", (sys.executable, "-c", code))
    job_id = harness.submit(steps=10)
    harness.supervisor(wandb_project="project").run()
    [warning] = [message for message in harness.logs(job_id) if "W&B" in message]
    assert "pip install 'frs-distill[wandb]'" in warning


def test_local_files_stay_only_without_a_key(harness, patient, monkeypatch):
    everything_is_fine = "import sys\nfor line in sys.stdin: print('{}', flush=True)"
    monkeypatch.setattr(wandb, "COMMAND", (sys.executable, "-c", everything_is_fine))
    for key, names in ((KEY, []), (None, ["environ.json"])):
        harness.submit(steps=3)
        harness.supervisor(wandb_project="project", wandb_api_key=key).run()
        assert [path.name for path in (harness.settings.data / "wandb").rglob("*.json")] == names


def test_a_process_that_was_killed_is_replaced_and_the_run_continued(harness, patient, monkeypatch):
    dies_at_the_third_request = "for _ in range(2): input(); print('{}', flush=True)"
    monkeypatch.setattr(wandb, "COMMAND", (sys.executable, "-c", dies_at_the_third_request))
    job_id = harness.submit(steps=10)
    harness.supervisor(wandb_project="project").run()
    assert "W&B" not in "".join(harness.logs(job_id))
