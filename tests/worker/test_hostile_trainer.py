import json
import os

import pytest
from sqlalchemy import select

from store.db.tables import Checkpoint, Job
from worker.process.environment import trainer_environment
from worker.process.output import LINES_PER_SECOND, Output, escape_control
from worker.process.pipes import LineSplitter

CANARY = "canary-7f3a"
SECRETS = ("FRS_DATABASE_URL", "FRS_BROKER_URL", "FRS_API_KEY", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "HF_TOKEN")


def test_a_trainer_sees_no_secret_of_ours(harness, monkeypatch):
    for name in SECRETS:
        monkeypatch.setenv(name, CANARY)
    job = harness.run(steps=1)
    seen = harness.artifact(job.id, "environ.json")
    assert CANARY not in json.dumps(seen)
    assert seen["FRS_PARENT_PID"] == str(os.getpid()) and seen["PATH"]


def test_the_environment_is_an_allow_list():
    ours = {"PATH": "/bin", "NVIDIA_VISIBLE_DEVICES": "0", "FRS_DATA": "/data", "SECRET": "x", "LD_PRELOAD": "x"}
    ours |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"), "x")
    allowed = trainer_environment(ours)
    assert allowed.keys() == {"PATH", "NVIDIA_VISIBLE_DEVICES", "FRS_PARENT_PID", "FRS_JAIL"}


def test_garbage_becomes_warnings_and_the_job_goes_on(harness):
    job = harness.run(steps=5, garbage=1)
    assert job.status == "succeeded"
    assert sorted(harness.steps(job.id)) == list(range(1, 6))
    logs = harness.logs(job.id)
    assert sum("that is no event" in message for message in logs) == 4
    assert sum("cannot be recorded" in message for message in logs) == 1
    assert any(r"\x1b[31mred" in message for message in logs)
    assert not any("\x1b" in message or "\x00" in message for message in logs)
    assert max(map(len, logs)) < 20_000


def test_control_characters_cannot_forge_a_line():
    assert escape_control("a\r\n\x1b[2J\x7f\x9b\u2028b\tc") == r"a\r\n\x1b[2J\x7f\x9b\u2028b" + "\tc"


def test_a_chatty_trainer_cannot_flood_the_log(harness):
    job = harness.run(steps=5, flood=20_000)
    assert job.status == "succeeded"
    logs = harness.logs(job.id)
    assert len(logs) < 3 * LINES_PER_SECOND
    assert any(message.endswith("lines of output left out.") for message in logs)


def test_what_is_left_out_is_counted():
    output = Output()
    messages = [log.message for _ in range(10 * LINES_PER_SECOND) for log in output.take(b"line")]
    messages += [log.message for log in output.end()]
    told = sum(message == "line" for message in messages)
    left_out = sum(int(message.split()[0]) for message in messages if message != "line")
    assert told + left_out == 10 * LINES_PER_SECOND


def test_a_checkpoint_outside_the_work_folder_is_refused(harness, tmp_path):
    outside = tmp_path / "secret.pth"
    outside.write_text("secret")
    job = harness.run(steps=5, outside=outside)
    assert job.status == "succeeded"
    assert any("was refused" in message for message in harness.logs(job.id))
    kept = harness.rows(select(Checkpoint).where(Checkpoint.job_id == job.id))
    assert not any(harness.artifacts.path(row.key).read_text() == "secret" for row in kept)


def test_a_student_that_is_not_what_was_said_fails_the_job(harness):
    job = harness.run(steps=5, lie=1)
    assert (job.status, job.end_reason) == ("failed", "internal_error")
    assert "was refused" in job.error["message"]
    assert not harness.rows(select(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.kind == "student"))


@pytest.mark.parametrize(("said", "reason"), [("diverged", "diverged"), ("out_of_memory", "out_of_memory")])
def test_a_failure_keeps_its_reason(harness, said, reason):
    job = harness.run(steps=5, fail=said)
    assert (job.status, job.end_reason, job.error["code"]) == ("failed", reason, said)


def test_a_reason_nobody_knows_is_an_internal_error(harness):
    job = harness.run(steps=5, fail="moon_phase")
    assert (job.status, job.end_reason, job.error["code"]) == ("failed", "internal_error", "moon_phase")


def test_an_exit_without_an_outcome_keeps_the_last_words(harness):
    job = harness.run(exit=3)
    assert (job.status, job.end_reason) == ("failed", "internal_error")
    assert "exit code 3" in job.error["message"] and "last words" in job.error["message"]


def test_a_data_set_whose_files_are_gone_fails_the_job_before_any_trainer(harness):
    job_id = harness.submit()
    (harness.settings.datasets_root / "shapes" / "val.json").unlink()
    harness.supervisor().run()
    [job] = harness.rows(select(Job).where(Job.id == job_id))
    assert (job.status, job.end_reason, job.error["code"]) == ("failed", "bad_dataset", "dataset_not_found")
    assert harness.logs(job_id) == []


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_lines_come_out_whole_however_they_are_cut(size):
    data = b"one\n\ntwo\n" + b"x" * 50 + b"\nthree"
    lines = LineSplitter(cap=20)
    found = [line for start in range(0, len(data), size) for line in lines.feed(data[start : start + size])]
    assert found + lines.end() == [b"one", b"", b"two", b"x" * 20, b"three"]
