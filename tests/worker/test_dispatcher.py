import threading

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from waiting import until
from worker_harness import dispatching, until_polled

from store.db.tables import Attempt
from store.jobs import lifecycle
from store.scheduling import queue, worker_registry
from worker.attempt import work_folder
from worker.attempt.supervisor import Supervisor
from worker.attempt.trainer_run import Interruption


def test_queued_jobs_run_one_after_another_without_a_broker(harness):
    job_ids = [harness.submit(steps=3) for _ in range(3)]
    with dispatching(harness):
        for job_id in job_ids:
            harness.until_status(job_id, "succeeded")


def test_a_wakeup_starts_a_job_before_the_next_poll(harness, tmp_path):
    with dispatching(harness, poll_seconds=60, heartbeat_file=tmp_path / "alive") as dispatcher:
        until((tmp_path / "alive").exists)  # the first poll is over
        job_id = harness.submit(steps=3)
        dispatcher.wake()
        harness.until_status(job_id, "succeeded", 10)


def test_concurrency_limits_the_number_of_running_jobs(harness):
    job_ids = [harness.submit(steps=10_000, seconds=0.01) for _ in range(3)]
    with dispatching(harness, concurrency=2):
        until(lambda: len(harness.trainers()) == 2)
        until_polled(harness)
        assert sorted(harness.job(job_id).status for job_id in job_ids) == ["queued", "running", "running"]
    assert harness.trainers() == []
    assert [harness.job(job_id).status for job_id in job_ids] == ["queued"] * 3


def test_a_lost_job_is_requeued_and_its_work_folder_removed(harness):
    job_id = harness.submit(steps=3)
    harness.do(lifecycle.claim, "a dead worker", 0.0)
    folder = harness.settings.work_root / job_id / "1"
    folder.mkdir(parents=True)
    with dispatching(harness):
        harness.until_status(job_id, "succeeded")
        until(lambda: not folder.exists())


def test_the_work_folder_of_a_running_attempt_is_kept(harness):
    job_id = harness.submit()
    harness.claim()
    folder, ended = (harness.settings.work_root / id / "1" for id in (job_id, "job_ended"))
    folder.mkdir(parents=True)
    with dispatching(harness):
        for _ in range(2):  # the second is removed by a later run of the removal, so the first run is over
            ended.mkdir(parents=True)
            until(lambda: not ended.parent.exists())
    assert folder.exists()
    work_folder.remove(folder)
    assert not folder.parent.exists()


def test_the_heartbeat_file_is_updated_only_while_the_database_answers(harness, tmp_path, monkeypatch):
    heartbeat_file, failures = tmp_path / "alive", []

    def fail(*_):
        failures.append(OperationalError("SELECT 1", {}, Exception("gone")))
        raise failures[-1]

    with dispatching(harness, heartbeat_file=heartbeat_file):
        until(heartbeat_file.exists)
        monkeypatch.setattr(queue, "peek", fail)
        until(lambda: failures)
        last = heartbeat_file.stat().st_mtime_ns
        until(lambda: len(failures) > 2)
        assert heartbeat_file.stat().st_mtime_ns == last


@pytest.mark.parametrize("call", ["claim", "requeue_expired"])
def test_the_dispatcher_survives_database_errors(harness, monkeypatch, call):
    failures = []
    real = getattr(lifecycle, call)

    def failing_at_first(*arguments, **named):
        if len(failures) < 3:
            failures.append(1)
            raise OperationalError("SELECT 1", {}, Exception("gone"))
        return real(*arguments, **named)

    monkeypatch.setattr(lifecycle, call, failing_at_first)
    job_id = harness.submit(steps=3)
    with dispatching(harness):
        harness.until_status(job_id, "succeeded")
        until(lambda: len(failures) == 3)


def test_a_job_whose_trainer_crashes_once_succeeds(harness):
    job_id = harness.submit(steps=20, crash_at=13)
    with dispatching(harness):
        harness.until_status(job_id, "succeeded")
    ends = select(Attempt.end).where(Attempt.job_id == job_id).order_by(Attempt.number)
    assert harness.rows(ends) == ["crashed", "succeeded"]
    assert sorted(harness.steps(job_id)) == list(range(1, 21))


def test_a_stop_reaches_the_trainers_before_the_registry(harness, monkeypatch):
    """A scheduler sends SIGTERM to the trainer, too; its death must not count as a crash."""
    order = []
    monkeypatch.setattr(Supervisor, "interrupt", recorded(order, "interrupt", Supervisor.interrupt))
    monkeypatch.setattr(worker_registry, "register", recorded(order, "register", worker_registry.register))
    job_id = harness.submit(steps=10_000, seconds=0.01)
    with dispatching(harness):
        harness.until_step(job_id, 3)
        order.clear()
    stop = order.index(("interrupt", Interruption.RELEASE))
    assert ("register", True) not in order[:stop] and ("register", True) in order[stop:]


def recorded(order, name, function):
    """Return the function; each call appends its name and the last positional argument or `draining`."""

    def record(*arguments, **named):
        order.append((name, named["draining"] if "draining" in named else arguments[-1]))
        return function(*arguments, **named)

    return record


def test_a_stopped_dispatcher_claims_nothing(harness):
    with dispatching(harness) as dispatcher:
        dispatcher.stop()
        dispatcher.join()
        job_id = harness.submit()
        dispatcher.wake()
        assert "dispatcher" not in {thread.name for thread in threading.enumerate()}
        assert harness.job(job_id).status == "queued"
