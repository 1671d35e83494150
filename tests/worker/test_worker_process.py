"""`python -m worker` as its own process: killed, stopped, and sent forged messages."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select
from waiting import until
from worker_harness import STUB, pause

from store.db.tables import Attempt
from store.jobs import actions
from store.scheduling.wakeups import celery_app, wakeup_sender
from store.settings import Settings
from worker.__main__ import check_tables

WORKER = Path(STUB[-1]).with_name("stub_worker.py")
LEASE = {"heartbeat_seconds": 0.3, "fence_seconds": 1.5, "lease_seconds": 2.5}


@pytest.fixture
def start(harness, tmp_path):
    """Return a function that starts a worker; the workers are killed after the test."""
    processes = []

    def start_worker(**changes):
        settings = harness.settings.model_copy(update={**LEASE, **changes})
        variables = {
            f"FRS_{name.upper()}": str(value) for name, value in settings.model_dump(exclude_unset=True).items()
        }
        with (tmp_path / f"worker{len(processes)}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, WORKER], env={**os.environ, **variables}, stdout=log, stderr=log
            )
        processes.append(process)
        return process

    yield start_worker
    for process in processes:
        process.kill()
        process.wait()
    until(lambda: harness.trainers() == [], 5)


def start_steps(harness, job_id):
    return harness.rows(select(Attempt.start_step).where(Attempt.job_id == job_id).order_by(Attempt.number))


def test_after_sigkill_of_a_worker_its_trainer_dies_and_another_worker_finishes_the_job(harness, start):
    uninterrupted = harness.run(steps=40)
    job_id = harness.submit(steps=40, seconds=0.04)
    worker = start()
    harness.until_step(job_id, 12)
    worker.kill()
    until(lambda: harness.trainers() == [], 2)
    start()
    harness.until_status(job_id, "succeeded")
    assert harness.losses(job_id) == harness.losses(uninterrupted.id)
    first, second = start_steps(harness, job_id)
    assert first == 0 and second >= 10 and second % 5 == 0


def test_a_worker_suspended_beyond_its_lease_writes_nothing_more(harness, start):
    uninterrupted = harness.run(steps=40)
    job_id = harness.submit(steps=40, seconds=0.04)
    suspended = start()
    harness.until_step(job_id, 7)
    pause(harness, suspended)
    start()
    until(lambda: harness.job(job_id).attempt == 2)
    harness.until_step(job_id, 20)
    suspended.send_signal(signal.SIGCONT)
    harness.until_status(job_id, "succeeded")
    assert harness.losses(job_id) == harness.losses(uninterrupted.id)
    assert harness.statuses(job_id) == ["queued", "running", "queued", "running", "succeeded"]
    until(lambda: harness.trainers() == [], 3)


def test_sigterm_requeues_the_job_without_losing_a_step(harness, start):
    uninterrupted = harness.run(steps=40)
    job_id = harness.submit(steps=40, seconds=0.04)
    worker = start()
    harness.until_step(job_id, 7)
    worker.terminate()
    assert worker.wait(10) == 0
    assert harness.job(job_id).status == "queued" and harness.trainers() == []
    last_step = max(harness.steps(job_id))
    harness.supervisor().run()
    assert start_steps(harness, job_id) == [0, last_step]
    assert harness.losses(job_id) == harness.losses(uninterrupted.id)


def test_jobs_run_without_a_broker(harness, start):
    job_id = harness.submit(steps=3)
    worker = start(broker_url="redis://:hush@127.0.0.1:1/0")
    harness.until_status(job_id, "succeeded")
    worker.terminate()
    assert worker.wait(15) == 0


def test_forged_messages_are_ignored_and_a_wakeup_is_handled(harness, start, tmp_path):
    start(poll_seconds=120)
    log = tmp_path / "worker0.log"
    broker = celery_app(harness.settings)
    first = harness.submit(steps=2)
    wakeup_sender(broker)(first)
    harness.until_status(first, "succeeded")
    broker.send_task("os.system", args=["true"])
    broker.send_task("celery.map", args=[{"task": "train"}, [[1]]])
    for arguments in ([], [1], [None], [{"a": 1}], ["../../etc/passwd"], ["job_" + "x" * 100_000], ["a", "b"]):
        broker.send_task("train", args=arguments)
    broker.send_task("train", args=["job_" + "0" * 26])
    second = harness.submit(steps=2)
    wakeup_sender(broker)(second)
    harness.until_status(second, "succeeded", 30)
    assert all(json.loads(line) for line in log.read_text().splitlines()), "every log line is a JSON object"


def test_cancel_reaches_the_trainer_of_another_process(harness, start):
    job_id = harness.submit(steps=10_000, seconds=0.01)
    start()
    harness.until_step(job_id, 5)
    requested_at = time.monotonic()
    harness.do(actions.cancel, job_id)
    harness.until_status(job_id, "cancelled")
    assert time.monotonic() - requested_at < 5 and harness.trainers() == []


def test_a_worker_ends_with_the_next_step_if_the_database_lacks_its_tables(start, tmp_path):
    assert start(database_url=f"sqlite:///{tmp_path / 'empty.db'}").wait(60) == 1
    assert "Run `python -m store init`." in (tmp_path / "worker0.log").read_text()


def test_a_worker_does_not_end_because_the_database_does_not_answer_at_its_start(tmp_path):
    check_tables(Settings(data=tmp_path, database_url="postgresql://frs@127.0.0.1:1/frs"))


def test_the_worker_imports_no_torch_and_has_one_task(tmp_path):
    code = (
        "import sys, worker.app, worker.tasks;"
        "assert 'torch' not in sys.modules and 'mmengine' not in sys.modules;"
        "assert set(worker.app.app.tasks) == {'train'}"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "FRS_DATA": str(tmp_path)}, check=True)
