"""What jobs leave in MLflow, and that no MLflow, however it behaves, changes a job."""

import io
import threading
import time
from typing import Any

import pytest
from mlflow_server import MlflowServer, running_mlflow
from pydantic import SecretStr
from scripted_tracker import END, RUN, ScriptedTracker
from sqlalchemy import select, update
from waiting import until
from worker_harness import WorkerHarness, in_background

from frs.events import Artifact, Metrics
from store.db.tables import Job, Metric
from store.jobs import actions
from worker.tracking import job_tracking
from worker.tracking.job_tracking import JobTracking

SOON = 1.0


@pytest.fixture
def mlflow():
    with running_mlflow() as server:
        yield server


@pytest.fixture
def impatient(monkeypatch):
    """Shorten the waits for a tracker that does not answer."""
    monkeypatch.setattr(job_tracking, "LAST_SECONDS", SOON)
    monkeypatch.setattr(job_tracking, "END_SECONDS", SOON)


def run(harness: WorkerHarness, mlflow: MlflowServer, job_id: str | None = None, **options: object) -> Job:
    """Run one attempt of the job, or of a new one, with MLflow, and return the job."""
    job_id = job_id or harness.submit(**options)
    harness.supervisor(mlflow_url=mlflow.url).run()
    return harness.job(job_id)


def warnings(harness: WorkerHarness, job_id: str) -> list[str]:
    return [message for message in harness.logs(job_id) if "MLflow" in message]


def trackers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tracker MLflow"]


def test_a_job_leaves_its_values_parameters_and_files_in_mlflow(harness, mlflow):
    spec = {"name": "my job", "tags": ["a", "b"], "schedule": {"epochs": 3}}
    job_id = harness.submit(spec, steps=7)
    run(harness, mlflow, job_id)
    [tracked] = mlflow.runs
    assert tracked.steps("train/loss") == list(range(1, 8))
    assert tracked.values("train/loss") == harness.losses(job_id)
    assert tracked.values("val/bbox_mAP") == [0.5]
    assert {point["key"] for point in tracked.points} == {"train/loss", "val/bbox_mAP"}, "null values are left out"
    assert tracked.parameters["schedule.epochs"] == "3" and tracked.parameters["student.architecture"] == "gfl"
    assert tracked.tags["frs.job_id"] == job_id and tracked.tags["frs.tags"] == "a, b"
    assert tracked.tags["mlflow.user"] == "admin"
    assert (tracked.info["run_name"], tracked.info["status"]) == ("my job", "FINISHED")
    assert tracked.tags["frs.end_reason"] == "completed"
    assert list(mlflow.files) == [f"0/{tracked.info['run_id']}/artifacts/environ.json"]
    assert warnings(harness, job_id) == [] and trackers() == []


def test_a_job_continued_after_a_crash_is_one_run_with_every_step_once(harness, mlflow):
    job = run(harness, mlflow, steps=20, crash_at=13)
    assert mlflow.runs[0].info["status"] == "SCHEDULED"
    run(harness, mlflow, job.id)
    [tracked] = mlflow.runs
    assert tracked.steps("train/loss") == list(range(1, 21))
    assert tracked.values("train/loss") == harness.losses(job.id)
    assert tracked.info["status"] == "FINISHED"


def test_a_job_retried_from_scratch_is_a_new_run(harness, mlflow):
    job = run(harness, mlflow, steps=5, fail="diverged")
    harness.do(actions.retry, job.id)
    run(harness, mlflow, job.id)
    first, second = mlflow.runs
    assert first.steps("train/loss") == second.steps("train/loss") == list(range(1, 6))
    assert [tracked.info["status"] for tracked in mlflow.runs] == ["FAILED", "FAILED"]
    assert [tracked.tags["frs.run_id"] for tracked in mlflow.runs] == [job.id, f"{job.id}-2"]


def test_a_resumed_job_continues_its_run(harness, mlflow):
    job = run(harness, mlflow, steps=5, fail="diverged")
    harness.do(actions.resume, job.id)
    run(harness, mlflow, job.id)
    assert len(mlflow.runs) == 1


def test_a_cancelled_job_is_killed_in_mlflow(harness, mlflow):
    job_id = harness.submit(steps=1000, seconds=0.01)
    thread = in_background(harness.supervisor(mlflow_url=mlflow.url))
    harness.until_step(job_id, 3)
    harness.cancel(job_id)
    thread.join()
    assert mlflow.runs[0].info["status"] == "KILLED"
    assert mlflow.runs[0].tags["frs.end_reason"] == "cancelled_by_user"


def test_an_attempt_that_lost_its_lease_leaves_the_run_to_its_successor(harness, mlflow):
    job_id = harness.submit(steps=10_000, seconds=0.01)
    thread = in_background(harness.supervisor(mlflow_url=mlflow.url))
    until(lambda: mlflow.runs and mlflow.runs[0].points)
    takeover = update(Job).where(Job.id == job_id).values(attempt=2, lease_owner="another")
    harness.do(lambda session: session.execute(takeover))
    thread.join(20)
    assert mlflow.runs[0].info["status"] == "RUNNING"
    recorded = set(harness.rows(select(Metric.step).where(Metric.job_id == job_id)))
    assert set(mlflow.runs[0].steps("train/loss")) <= recorded
    until(lambda: trackers() == [])


def test_without_a_setting_no_tracker_is_started(harness, monkeypatch):
    monkeypatch.setattr(job_tracking, "Forwarder", None)
    assert harness.run(steps=3).status == "succeeded"


def test_a_server_that_is_down_leaves_one_warning(harness, mlflow, impatient):
    mlflow.stop()
    job = run(harness, mlflow, steps=10)
    mlflow.start()
    assert job.status == "succeeded" and len(harness.losses(job.id)) == 10
    [warning] = warnings(harness, job.id)
    assert "has not taken" in warning and "ConnectError" in warning and "FRS_MLFLOW_URL" in warning


def test_a_server_that_starts_late_gets_everything(harness, mlflow):
    mlflow.stop()
    job_id = harness.submit(steps=20, seconds=0.02)
    thread = in_background(harness.supervisor(mlflow_url=mlflow.url))
    harness.until_step(job_id, 5)
    mlflow.start()
    thread.join()
    assert mlflow.runs[0].steps("train/loss") == list(range(1, 21))
    assert warnings(harness, job_id) == []


def test_a_server_that_goes_away_in_mid_run_leaves_one_warning(harness, mlflow, impatient):
    job_id = harness.submit(steps=60, seconds=0.02)
    thread = in_background(harness.supervisor(mlflow_url=mlflow.url))
    until(lambda: mlflow.runs and mlflow.runs[0].points)
    mlflow.misbehave = lambda request: True
    thread.join()
    assert harness.job(job_id).status == "succeeded" and len(harness.losses(job_id)) == 60
    assert len(warnings(harness, job_id)) == 1


def hang(request: Any) -> bool:
    released.wait()
    return True


released = threading.Event()


def drip(request: Any) -> bool:
    """Answer a byte at a time."""
    request.send_response(200)
    request.end_headers()
    while not released.wait(0.05):
        request.wfile.write(b" ")
        request.wfile.flush()
    return True


@pytest.mark.parametrize("misbehave", [hang, drip])
def test_a_slow_server_does_not_hold_up_a_job(harness, mlflow, impatient, misbehave):
    released.clear()
    mlflow.misbehave = misbehave
    job = run(harness, mlflow, steps=10)
    released.set()
    assert job.status == "succeeded"
    assert len(warnings(harness, job.id)) == 1


ANSWERS = {
    "web page": (200, b"<html>Sign in</html>", "is not MLflow's"),
    "another service": (200, b'{"run": "yes", "runs": {}}', "is not MLflow's"),
    "nothing": (200, b"", "is not MLflow's"),
    "deep": (200, b"[" * 100_000, ""),
    "long": (200, b"[" + b" " * (5 << 20), "too long"),
    "failing": (500, b"{}", "HTTP 500"),
    "unknown key": (401, b'{"error_code": "UNAUTHENTICATED"}', "HTTP 401 UNAUTHENTICATED"),
    "quoting": (403, b'{"error_code": "canary-9d2e", "message": "canary-9d2e"}', "HTTP 403."),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_server_that_answers_wrongly_leaves_one_warning(harness, mlflow, impatient, kind):
    status, body, reason = ANSWERS[kind]

    def misbehave(request: Any) -> bool:
        request.reply(status, body)
        return True

    mlflow.misbehave = misbehave
    job = run(harness, mlflow, steps=5)
    assert job.status == "succeeded"
    [warning] = warnings(harness, job.id)
    assert reason in warning and "canary" not in warning


def test_a_redirect_is_not_followed_with_the_token(harness, mlflow, impatient):
    with running_mlflow() as other:

        def misbehave(request: Any) -> bool:
            request.reply(302, b"", Location=f"{other.url}{request.path}")
            return True

        mlflow.misbehave = misbehave
        job_id = harness.submit(steps=3)
        harness.supervisor(mlflow_url=mlflow.url, mlflow_token=SecretStr("canary")).run()
        assert mlflow.requests[0][1]["authorization"] == "Bearer canary"
        assert other.requests == []
    assert "HTTP 302" in warnings(harness, job_id)[0]


def test_user_and_password_of_the_address_are_sent(harness, mlflow):
    harness.submit(steps=1)
    harness.supervisor(mlflow_url=mlflow.url.replace("://", "://user:word@")).run()
    assert {headers["authorization"] for _, headers in mlflow.requests} == {"Basic dXNlcjp3b3Jk"}


def test_files_behind_another_storage_are_left_out_with_a_warning(harness, mlflow):
    answer = mlflow.answer

    def behind_s3(method: str, path: str, *arguments: Any) -> Any:
        status, document = answer(method, path, *arguments)
        if "run" in document:
            document["run"]["info"]["artifact_uri"] = "s3://bucket/0/run/artifacts"
        return status, document

    mlflow.answer = behind_s3
    job = run(harness, mlflow, steps=3)
    assert mlflow.files == {} and mlflow.runs[0].steps("train/loss") == [1, 2, 3]
    [warning] = warnings(harness, job.id)
    assert "lie in s3" in warning and "--artifacts-destination" in warning


def test_artifacts_with_the_name_of_another_folder_are_not_forwarded():
    tracker = ScriptedTracker()
    tracking = JobTracking([tracker], lambda key: io.BytesIO(b"x"))
    tracking.start(RUN)
    for name in ("../secret", "a/b", "..", ".hidden", "", "x" * 101, "report.json"):
        tracking.add_file(Artifact(name=name, path="x", sha256="", bytes=1), "key")
    tracking.end(END)
    assert [call[1] for call in tracker.calls if call[0] == "file"] == ["report.json"]


def test_a_tracker_gets_no_value_that_the_database_refused(harness, mlflow):
    job = run(harness, mlflow, steps=3, garbage=1)
    assert job.status == "succeeded"
    assert {point["key"] for point in mlflow.runs[0].points} == {"train/loss", "val/bbox_mAP"}


def test_values_carry_the_workers_time():
    tracker = ScriptedTracker()
    tracking = JobTracking([tracker], lambda key: io.BytesIO())
    tracking.start(RUN)
    tracking.add_events([Metrics(time=1e300, step=1, epoch=0, values={"train/loss": 1.0})])
    tracking.end(END)
    assert abs(tracker.points[0].at - time.time()) < 60
