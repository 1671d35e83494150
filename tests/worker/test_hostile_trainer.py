import json
import os

import pytest
from sqlalchemy import select

from store.db.tables import Checkpoint, Job
from worker.process.environment import trainer_environment
from worker.process.output import LINES_PER_SECOND, OutputLog, escape_control
from worker.process.pipes import LineSplitter

CANARY = "canary-7f3a"
SECRETS = ("FRS_DATABASE_URL", "FRS_BROKER_URL", "FRS_API_KEY", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "HF_TOKEN")


def test_a_trainer_gets_no_secret_from_the_environment(harness, monkeypatch):
    for name in SECRETS:
        monkeypatch.setenv(name, CANARY)
    job = harness.run(steps=1)
    variables = harness.artifact(job.id, "environ.json")
    assert CANARY not in json.dumps(variables)
    assert variables["FRS_PARENT_PID"] == str(os.getpid()) and variables["PATH"]


def test_only_listed_environment_variables_reach_a_trainer():
    environment = {"PATH": "/bin", "NVIDIA_VISIBLE_DEVICES": "0", "FRS_DATA": "/data", "SECRET": "x", "LD_PRELOAD": "x"}
    environment |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"), "x")
    environment |= {"TORCH_HOME": "/caches/torch"}
    allowed = trainer_environment(environment)
    assert allowed.keys() == {"PATH", "NVIDIA_VISIBLE_DEVICES", "TORCH_HOME", "FRS_PARENT_PID", "FRS_JAIL"}


def test_invalid_lines_become_warnings_and_the_job_succeeds(harness):
    job = harness.run(steps=5, garbage=1)
    assert job.status == "succeeded"
    assert sorted(harness.steps(job.id)) == list(range(1, 6))
    logs = harness.logs(job.id)
    assert sum("that is no event" in message for message in logs) == 4
    assert sum("cannot be recorded" in message for message in logs) == 1
    assert any(r"\x1b[31mred" in message for message in logs)
    assert not any("\x1b" in message or "\x00" in message for message in logs)
    assert max(map(len, logs)) < 20_000


def test_control_characters_are_escaped():
    assert escape_control("a\r\n\x1b[2J\x7f\x9b\u2028b\tc") == r"a\r\n\x1b[2J\x7f\x9b\u2028b" + "\tc"


def test_excessive_output_of_a_trainer_is_dropped(harness):
    job = harness.run(steps=5, flood=20_000)
    assert job.status == "succeeded"
    logs = harness.logs(job.id)
    assert len(logs) < 3 * LINES_PER_SECOND
    assert any(message.endswith("lines of output left out.") for message in logs)


def test_dropped_lines_are_counted():
    output = OutputLog()
    messages = [log.message for _ in range(10 * LINES_PER_SECOND) for log in output.add(b"line")]
    messages += [log.message for log in output.flush()]
    logged = sum(message == "line" for message in messages)
    dropped = sum(int(message.split()[0]) for message in messages if message != "line")
    assert logged + dropped == 10 * LINES_PER_SECOND


def test_a_checkpoint_outside_the_work_folder_is_rejected(harness, tmp_path):
    outside = tmp_path / "secret.pth"
    outside.write_text("secret")
    job = harness.run(steps=5, outside=outside)
    assert job.status == "succeeded"
    assert any("was rejected" in message for message in harness.logs(job.id))
    checkpoints = harness.rows(select(Checkpoint).where(Checkpoint.job_id == job.id))
    assert not any(harness.artifacts.path(row.key).read_text() == "secret" for row in checkpoints)


def test_a_student_with_a_wrong_sha256_fails_the_job(harness):
    job = harness.run(steps=5, wrong_sha256=1)
    assert (job.status, job.end_reason) == ("failed", "internal_error")
    assert "was rejected" in job.error["message"]
    assert not harness.rows(select(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.kind == "student"))


@pytest.mark.parametrize(("code", "reason"), [("diverged", "diverged"), ("out_of_memory", "out_of_memory")])
def test_a_failed_job_has_the_end_reason_of_the_trainer(harness, code, reason):
    job = harness.run(steps=5, fail=code)
    assert (job.status, job.end_reason, job.error["code"]) == ("failed", reason, code)


def test_an_unknown_end_reason_becomes_internal_error(harness):
    job = harness.run(steps=5, fail="moon_phase")
    assert (job.status, job.end_reason, job.error["code"]) == ("failed", "internal_error", "moon_phase")


def test_an_exit_without_an_outcome_reports_the_end_of_the_output(harness):
    job = harness.run(exit=3)
    assert (job.status, job.end_reason) == ("failed", "internal_error")
    assert "exit code 3" in job.error["message"] and "final output" in job.error["message"]


def test_missing_data_set_files_fail_the_job_before_the_trainer_starts(harness):
    job_id = harness.submit()
    (harness.settings.datasets_root / "shapes" / "val.json").unlink()
    harness.supervisor().run()
    [job] = harness.rows(select(Job).where(Job.id == job_id))
    assert (job.status, job.end_reason, job.error["code"]) == ("failed", "bad_dataset", "dataset_not_found")
    assert harness.logs(job_id) == []


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_lines_are_complete_for_every_chunk_size(size):
    data = b"one\n\ntwo\n" + b"x" * 50 + b"\nthree"
    splitter = LineSplitter(cap=20)
    lines = [line for start in range(0, len(data), size) for line in splitter.feed(data[start : start + size])]
    assert lines + splitter.flush() == [b"one", b"", b"two", b"x" * 20, b"three"]
