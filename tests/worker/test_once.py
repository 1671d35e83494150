"""`python -m worker --once`: one job or worker request, without a broker, then an exit code."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select
from waiting import until
from worker_harness import STUB

from frs.spec import JobSpec
from store.db.tables import Attempt, Worker, WorkerRequest
from store.jobs import actions
from store.requests import worker_requests
from store.states import RequestKind
from worker.__main__ import parse
from worker.dispatch.dispatcher import Once
from worker.once import ExitCode

WORKER = Path(STUB[-1]).with_name("stub_worker.py")


@pytest.fixture
def start(harness, tmp_path):
    """Return a function that starts a worker with `--once`; the workers are killed after the test."""
    processes = []

    def start_worker(*arguments, **changes):
        settings = harness.settings.model_copy(update={"broker_url": "redis://nowhere.invalid", **changes})
        names = {*settings.model_fields_set, *changes}
        variables = {f"FRS_{name.upper()}": str(getattr(settings, name)) for name in names}
        command = [sys.executable, WORKER, "--once", *arguments]
        with (tmp_path / "worker.log").open("wb") as log:
            processes.append(subprocess.Popen(command, env={**os.environ, **variables}, stdout=log, stderr=log))
        return processes[-1]

    yield start_worker
    for process in processes:
        process.kill()
        process.wait()


def test_it_runs_the_first_job_of_the_queue_and_ends(harness, start):
    first, second = (harness.submit(steps=3) for _ in range(2))
    assert start().wait() == ExitCode.DONE
    assert [harness.job(job_id).status for job_id in (first, second)] == ["succeeded", "queued"]


def test_an_empty_queue_ends_it_at_once(harness, start):
    assert start().wait() == ExitCode.NOTHING_TO_DO


def test_it_waits_for_a_job(harness, start):
    worker = start("--wait", "60")
    until(lambda: harness.rows(select(Worker)))
    job_id = harness.submit(steps=3)
    assert worker.wait() == ExitCode.DONE
    assert harness.job(job_id).status == "succeeded"


def test_it_runs_the_named_job_only(harness, start):
    first, named = (harness.submit(steps=3) for _ in range(2))
    assert start("--job", named).wait() == ExitCode.DONE
    assert [harness.job(job_id).status for job_id in (first, named)] == ["queued", "succeeded"]
    assert start("--job", named).wait() == ExitCode.NOTHING_TO_DO


def test_a_job_whose_files_it_lacks_is_nothing_to_do_and_the_log_names_them(harness, start, tmp_path):
    harness.submit(steps=3)
    (harness.settings.datasets_root / "shapes" / "val.json").unlink()
    assert start().wait() == ExitCode.NOTHING_TO_DO
    assert "lacks shapes/val.json of data set shapes" in (tmp_path / "worker.log").read_text()


def test_a_failed_job_is_done(harness, start):
    job_id = harness.submit(steps=3, fail="diverged")
    assert start().wait() == ExitCode.DONE
    assert harness.job(job_id).status == "failed"


def test_sigterm_returns_the_job_with_a_checkpoint_and_the_next_worker_continues_it(harness, start):
    uninterrupted = harness.run(steps=40)
    job_id = harness.submit(steps=40, seconds=0.04)
    worker = start()
    harness.until_step(job_id, 7)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait() == ExitCode.RETURNED
    assert harness.job(job_id).status == "queued"
    assert start().wait() == ExitCode.DONE
    assert harness.losses(job_id) == harness.losses(uninterrupted.id)
    starts = harness.rows(select(Attempt.start_step).where(Attempt.job_id == job_id).order_by(Attempt.number))
    assert starts[0] == 0 and starts[1] >= 7


def test_an_attempt_whose_trainer_dies_is_returned(harness, start):
    job_id = harness.submit(steps=20, crash_at=13)
    assert start().wait() == ExitCode.RETURNED
    assert start().wait() == ExitCode.DONE
    assert harness.job(job_id).status == "succeeded"


def test_a_cancelled_job_is_done(harness, start):
    job_id = harness.submit(steps=10_000, seconds=0.01)
    worker = start()
    harness.until_step(job_id, 3)
    harness.do(actions.cancel, job_id)
    assert worker.wait() == ExitCode.DONE
    assert harness.job(job_id).status == "cancelled"


def test_two_workers_run_one_job_once(harness, start):
    job_id = harness.submit(steps=10)
    codes = sorted(worker.wait() for worker in [start(), start()])
    assert codes == [ExitCode.DONE, ExitCode.NOTHING_TO_DO]
    assert harness.job(job_id).attempt == 1


def test_it_runs_a_worker_request_before_the_jobs(harness, start):
    job_id = harness.submit(steps=3)
    spec = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}}
    request = {"spec": JobSpec.model_validate(spec).model_dump(mode="json"), "dataset_id": "ds_shapes"}
    request_id = harness.do(worker_requests.add, RequestKind.PROBE, request, owner="admin").id
    assert start().wait() == ExitCode.DONE
    assert harness.rows(select(WorkerRequest.status).where(WorkerRequest.id == request_id)) == ["succeeded"]
    assert harness.job(job_id).status == "queued"


def test_a_worker_of_two_hosts_runs_a_job_of_two_whose_trainer_has_a_network_and_the_first_hosts_address(
    harness, start, monkeypatch
):
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    single, double = harness.submit(steps=3), harness.submit({"resources": {"nodes": 2}}, steps=3)
    assert start("--nodes", "2").wait() == ExitCode.DONE
    assert [harness.job(job_id).status for job_id in (single, double)] == ["queued", "succeeded"]
    variables = harness.artifact(double, "environ.json")
    assert (variables["MASTER_ADDR"], variables["FRS_TRAINER_NETWORK"]) == ("10.0.0.1", "1")
    assert start().wait() == ExitCode.DONE
    assert "FRS_TRAINER_NETWORK" not in harness.artifact(single, "environ.json")


def test_a_worker_of_two_hosts_registers_their_number(harness, start):
    start("--nodes", "2", "--wait", "60")
    until(lambda: harness.rows(select(Worker)))
    assert harness.rows(select(Worker.nodes)) == [2]


def test_options_of_a_single_run_need_once(capsys):
    with pytest.raises(SystemExit):
        parse(["--wait", "3"])
    assert "--job, --wait, --min-gpus and --nodes need --once" in capsys.readouterr().err
    assert parse(["--once", "--job", "job_1", "--wait", "3"]) == Once("job_1", 3)
    assert parse(["--once", "--min-gpus", "2", "--nodes", "4"]) == Once(min_gpus=2, nodes=4)
    assert parse([]) is None
