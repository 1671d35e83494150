import time

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from worker_harness import dispatching, until

from store.db.tables import Attempt
from store.jobs import lifecycle
from worker.attempt import work_folder
from worker.dispatch.dispatcher import Dispatcher


def test_jobs_are_found_in_the_database_and_run_one_after_another(harness):
    submitted = [harness.submit(steps=3) for _ in range(3)]
    with dispatching(harness):
        for job_id in submitted:
            harness.until_status(job_id, "succeeded")


def test_a_hint_is_quicker_than_the_next_look(harness):
    with dispatching(harness, poll_seconds=60) as dispatcher:
        time.sleep(0.3)
        job_id = harness.submit(steps=3)
        dispatcher.wake()
        harness.until_status(job_id, "succeeded", 10)


def test_as_many_jobs_run_at_a_time_as_there_are_slots(harness):
    submitted = [harness.submit(steps=10_000, seconds=0.01) for _ in range(3)]
    with dispatching(harness, concurrency=2):
        until(lambda: len(harness.trainers()) == 2)
        time.sleep(0.5)
        assert sorted(harness.job(job_id).status for job_id in submitted) == ["queued", "running", "running"]
    assert harness.trainers() == []
    assert [harness.job(job_id).status for job_id in submitted] == ["queued"] * 3


def test_a_lost_job_is_taken_back_and_its_folder_removed(harness):
    job_id = harness.submit(steps=3)
    harness.do(lifecycle.claim, "a dead worker", 0.0)
    left = harness.settings.work_root / job_id / "1"
    left.mkdir(parents=True)
    with dispatching(harness):
        harness.until_status(job_id, "succeeded")
        until(lambda: not left.exists())


def test_the_folder_of_a_running_attempt_stays(harness):
    job_id = harness.submit()
    harness.claim()
    folder = harness.settings.work_root / job_id / "1"
    folder.mkdir(parents=True)
    with dispatching(harness):
        time.sleep(1)
    assert folder.exists()
    work_folder.remove(folder)
    assert not folder.parent.exists()


def test_its_file_is_young_only_while_it_reaches_the_database(harness, tmp_path, monkeypatch):
    alive = tmp_path / "alive"
    with dispatching(harness, heartbeat_file=alive, poll_seconds=0.1):
        until(alive.exists)
        monkeypatch.setattr(Dispatcher, "_turn", lambda _: 1 / 0)
        time.sleep(0.5)
        last = alive.stat().st_mtime_ns
        time.sleep(0.5)
        assert alive.stat().st_mtime_ns == last


@pytest.mark.parametrize("call", ["claim", "requeue_expired"])
def test_errors_of_the_database_do_not_end_the_dispatcher(harness, monkeypatch, call):
    failures = []
    real = getattr(lifecycle, call)

    def sometimes(*arguments, **named):
        if len(failures) < 3:
            failures.append(1)
            raise OperationalError("SELECT 1", {}, Exception("gone"))
        return real(*arguments, **named)

    monkeypatch.setattr(lifecycle, call, sometimes)
    job_id = harness.submit(steps=3)
    with dispatching(harness):
        harness.until_status(job_id, "succeeded")
        until(lambda: len(failures) == 3)


def test_a_trainer_that_dies_once_costs_nobody_anything(harness):
    job_id = harness.submit(steps=20, crash_at=13)
    with dispatching(harness):
        harness.until_status(job_id, "succeeded")
    ends = select(Attempt.end).where(Attempt.job_id == job_id).order_by(Attempt.number)
    assert harness.rows(ends) == ["crashed", "succeeded"]
    assert sorted(harness.steps(job_id)) == list(range(1, 21))


def test_a_dispatcher_that_was_stopped_claims_nothing(harness):
    with dispatching(harness) as dispatcher:
        dispatcher.stop()
        dispatcher.join()
        job_id = harness.submit()
        dispatcher.wake()
        time.sleep(0.5)
        assert harness.job(job_id).status == "queued"
