import os
import signal
import threading
import time
from unittest.mock import Mock

import structlog
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from waiting import alive, until
from worker_harness import in_background

from store.db.audit import Actor
from store.db.tables import Attempt, Checkpoint, Job
from store.jobs import actions, lifecycle
from store.jobs.checkpoints import newest_checkpoints
from worker.attempt.supervisor import Supervisor


def test_a_successful_job_has_all_its_metrics_and_files(harness):
    job = harness.run(steps=20)
    assert (job.status, job.end_reason, job.error) == ("succeeded", "completed", None)
    assert sorted(harness.steps(job.id)) == list(range(1, 21))
    assert job.progress["step"] == 20 and job.facts["parameters"] == 1
    checkpoints = harness.rows(
        select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step, Checkpoint.kind)
    )
    assert [(row.kind, row.step) for row in checkpoints] == [("student", 20)], "training checkpoints serve to resume"
    assert all(harness.artifacts.path(row.key).stat().st_size == row.bytes for row in checkpoints)
    files = [path.name for path in (harness.settings.artifacts_root / job.id).rglob("*") if path.is_file()]
    assert len(files) == 2, "training checkpoints and temporary files are removed"
    assert list(harness.settings.work_root.iterdir()) == []


def test_the_log_lines_of_an_attempt_carry_the_id_of_the_submitting_request(harness):
    harness.submit(steps=2, actor=Actor("alice", "key_1", request_id="req_1"))
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        harness.supervisor().run()
    assert len(lines) >= 2 and all(line["request_id"] == "req_1" for line in lines)


def test_a_killed_trainer_resumes_from_its_newest_checkpoint(harness):
    uninterrupted = harness.run(steps=20)
    job = harness.run(steps=20, crash_at=13)
    assert job.status == "queued"
    harness.supervisor().run()
    assert harness.statuses(job.id) == ["queued", "running", "queued", "running", "succeeded"]
    assert sorted(harness.steps(job.id)) == list(range(1, 21))
    assert harness.losses(job.id) == harness.losses(uninterrupted.id)
    starts = select(Attempt.start_step).where(Attempt.job_id == job.id).order_by(Attempt.number)
    assert harness.rows(starts) == [0, 10]


def test_three_crashes_without_progress_fail_the_job_as_poison(harness):
    job_id = harness.submit(crash_at=3, crash_attempts="all")
    for _ in range(3):
        harness.supervisor().run()
    job = harness.job(job_id)
    assert (job.status, job.end_reason) == ("failed", "poison")


def test_the_loss_of_a_node_counts_as_a_crash_and_its_message_is_in_the_history(harness):
    job = harness.run(fail="nodes_unavailable")
    assert job.status == "queued" and "As the test requests." in harness.messages(job.id)
    assert harness.rows(select(Attempt.end).where(Attempt.job_id == job.id)) == ["crashed"]


def test_a_checkpoint_without_its_file_is_skipped(harness):
    job = harness.run(steps=20, crash_at=13)
    newest, _ = harness.do(newest_checkpoints, job.id)
    harness.artifacts.delete(newest.key)
    harness.supervisor().run()
    assert harness.job(job.id).status == "succeeded"
    assert sorted(harness.steps(job.id)) == list(range(1, 21))


def test_no_database_session_is_open_during_artifact_transfers(harness, monkeypatch):
    job = harness.run(steps=20, crash_at=13)
    supervisor, connections = harness.supervisor(heartbeat_seconds=3), []  # no heartbeat during the test

    def record_connections(name):
        real = getattr(supervisor.artifacts, name)

        def recording(*arguments):
            connections.append((name, harness.database.engine.pool.checkedout()))
            return real(*arguments)

        monkeypatch.setattr(supervisor.artifacts, name, recording)

    for name in ("fetch", "put", "keep_only", "delete"):
        record_connections(name)
    supervisor.run()
    assert harness.job(job.id).status == "succeeded"
    assert {("fetch", 0), ("put", 0), ("keep_only", 0), ("delete", 0)} == set(connections)


def test_a_later_step_of_an_earlier_attempt_is_not_resumed_from(harness):
    job = harness.run(steps=20, crash_at=13, crash_attempts="1,2")
    harness.supervisor().run()
    older = update(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.step == 5).values(attempt=2)
    harness.do(lambda session: session.execute(older))
    harness.supervisor().run()
    starts = select(Attempt.start_step).where(Attempt.job_id == job.id).order_by(Attempt.number)
    assert harness.rows(starts) == [0, 10, 5]
    assert sorted(harness.steps(job.id)) == list(range(1, 21))


def test_cancel_kills_a_trainer_that_ignores_sigterm_and_nothing_is_written_afterwards(harness):
    job_id = harness.submit(steps=1000, hang_at=10)
    supervisor = harness.supervisor(grace_seconds=0.5)
    thread = in_background(supervisor)
    harness.until_step(job_id, 9)
    requested_at = time.monotonic()
    harness.do(actions.cancel, job_id)
    harness.until_status(job_id, "cancelled")
    assert time.monotonic() - requested_at < 5
    assert harness.trainers() == []
    before = harness.last_event(job_id)
    thread.join()
    assert harness.last_event(job_id) == before
    assert harness.job(job_id).end_reason == "cancelled_by_user"


def test_a_release_loses_no_step(harness):
    uninterrupted = harness.run(steps=60)
    job_id = harness.submit(steps=60, seconds=0.03)
    supervisor = harness.supervisor()
    thread = in_background(supervisor)
    harness.until_step(job_id, 7)
    supervisor.release()
    thread.join()
    [end] = harness.rows(select(Attempt.end).where(Attempt.job_id == job_id))
    assert (harness.job(job_id).status, end) == ("queued", "released")
    last_step = max(harness.steps(job_id))
    harness.supervisor().run()
    starts = select(Attempt.start_step).where(Attempt.job_id == job_id).order_by(Attempt.number)
    assert harness.rows(starts) == [0, last_step]
    assert harness.losses(job_id) == harness.losses(uninterrupted.id)


def test_a_trainer_that_ignores_a_release_is_killed_after_the_grace_period(harness):
    job_id = harness.submit(hang_at=10)
    supervisor = harness.supervisor(grace_seconds=0.5)
    thread = in_background(supervisor)
    harness.until_step(job_id, 9)
    supervisor.release()
    thread.join(10)
    [end] = harness.rows(select(Attempt.end).where(Attempt.job_id == job_id))
    assert (harness.job(job_id).status, end) == ("queued", "released")


def test_a_release_before_the_trainer_starts_requeues_the_job(harness):
    job_id = harness.submit()
    supervisor = harness.supervisor()
    supervisor.release()
    supervisor.run()
    assert harness.statuses(job_id) == ["queued", "running", "queued"]


def test_a_lost_lease_stops_the_trainer_and_nothing_more_is_written(harness):
    job_id = harness.submit(steps=10_000, seconds=0.01)
    thread = in_background(harness.supervisor())
    harness.until_step(job_id, 5)
    takeover = update(Job).where(Job.id == job_id).values(attempt=2, lease_owner="another")
    harness.do(lambda session: session.execute(takeover))
    before = harness.last_event(job_id)
    thread.join(5)
    assert not thread.is_alive() and harness.trainers() == []
    assert harness.last_event(job_id) == before
    assert harness.job(job_id).lease_owner == "another"


def test_without_a_renewal_the_trainer_dies_before_the_lease_ends(harness, monkeypatch):
    job_id = harness.submit(steps=10_000, seconds=0.01)
    supervisor = harness.supervisor(fence_seconds=1.0)
    monkeypatch.setattr(lifecycle, "renew", Mock(side_effect=OperationalError("UPDATE", {}, Exception("gone"))))
    started = time.monotonic()
    supervisor.run()
    assert 0.9 < time.monotonic() - started < 4
    [end] = harness.rows(select(Attempt.end).where(Attempt.job_id == job_id))
    assert (harness.job(job_id).status, end) == ("queued", "released")
    assert harness.messages(job_id)[-1].startswith("Attempt 1: the worker could not renew its lease for 1 s")


def test_a_database_outage_longer_than_the_fence_kills_the_trainer_and_the_job_is_returned(harness):
    job_id = harness.submit(steps=10_000, seconds=0.01)
    supervisor = harness.supervisor(fence_seconds=1.5)
    thread = in_background(supervisor)
    until(lambda: harness.trainers())
    with harness.database.write() as session:  # holds the only write lock
        session.connection()
        until(lambda: not harness.trainers(), 5)
    thread.join(15)
    assert not thread.is_alive()
    assert harness.rows(select(Attempt.end).where(Attempt.job_id == job_id)) == ["released"]
    assert harness.messages(job_id)[-1].startswith("Attempt 1: the worker could not renew its lease")


def test_events_sent_during_a_database_outage_are_written_later(harness):
    job_id = harness.submit(steps=60, seconds=0.02)
    supervisor = harness.supervisor()
    thread = in_background(supervisor)
    harness.until_step(job_id, 5)
    with harness.database.write() as session:
        session.connection()
        until(lambda: not harness.trainers())  # it has sent its last event
    thread.join()
    assert harness.job(job_id).status == "succeeded"
    assert sorted(harness.steps(job_id)) == list(range(1, 61))


def test_a_silent_trainer_fails_as_hung_with_its_stack(harness):
    job_id = harness.submit(hang_at=10)
    harness.supervisor(step_stall_timeout_seconds=1.0).run()
    job = harness.job(job_id)
    assert (job.status, job.end_reason) == ("failed", "hung")
    assert "train_step" in job.error["message"]


def test_the_stall_timeout_before_training_is_a_setting_of_its_own(harness):
    job_id = harness.submit(sleep_in="loading")
    harness.supervisor(stall_timeout_seconds=1.0, step_stall_timeout_seconds=0.2).run()
    assert "for 1 seconds while loading" in harness.job(job_id).error["message"]


def test_a_trainer_killed_for_lack_of_memory_is_not_retried(harness, monkeypatch):
    kills = iter([0, 1])
    monkeypatch.setattr("worker.attempt.supervisor.oom_kill_count", lambda: next(kills))
    job = harness.run(crash_at=3)
    assert (job.status, job.end_reason, job.error["code"]) == ("failed", "out_of_memory", "out_of_memory")
    assert "batch_size" in job.error["hint"]


def test_a_memory_error_is_reported_with_its_traceback(harness):
    job = harness.run(exhaust_memory=1)
    assert (job.status, job.end_reason) == ("failed", "out_of_memory")
    assert "MemoryError" in job.error["message"]


def test_every_failure_has_a_hint(harness):
    for options in ({"fail": "diverged"}, {"exit": 3}, {"wrong_sha256": 1}, {"fail": "no such reason"}):
        error = harness.run(**options).error
        assert error["code"] and error["message"] and error["hint"], options


def test_too_little_disk_space_requeues_the_job_before_it_starts(harness):
    job_id = harness.submit()
    harness.supervisor(min_free_mb=1 << 40).run()
    job = harness.job(job_id)
    assert (job.status, job.status_reason_code) == ("queued", "waiting_for_storage")
    assert harness.steps(job_id) == [] and "MiB of free disk space" in job.status_reason_message


def test_child_processes_of_a_trainer_die_with_it(harness):
    job = harness.run(spawn=1)
    assert job.status == "succeeded"
    assert not alive(job.facts["spawned"])
    job = harness.run(spawn=1, crash_at=3)
    until(lambda: not alive(harness.job(job.id).facts["spawned"]))


def test_the_trainer_has_its_own_session_and_process_group(harness):
    harness.submit(hang_at=2)
    supervisor = harness.supervisor(grace_seconds=0.2)
    thread = in_background(supervisor)
    until(lambda: harness.trainers())
    [pid] = harness.trainers()
    until(lambda: os.getsid(pid) == pid and os.getpgid(pid) == pid)
    supervisor.release()
    thread.join()


def test_a_sigterm_from_outside_requeues_the_job(harness):
    job_id = harness.submit(steps=10_000, seconds=0.01)
    thread = in_background(harness.supervisor())
    harness.until_step(job_id, 5)
    os.kill(harness.trainers()[0], signal.SIGTERM)
    thread.join()
    assert harness.job(job_id).status == "queued"


def test_a_missing_executable_fails_the_job(harness):
    job_id = harness.submit()
    Supervisor(harness.database, harness.settings, harness.claim(), ["/no/such/program"]).run()
    job = harness.job(job_id)
    assert (job.status, job.end_reason) == ("failed", "internal_error")
    assert "No such file" in job.error["message"]


def test_a_full_disk_makes_the_job_wait_for_storage(harness, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    job_id = harness.submit(steps=10_000, seconds=0.01)
    supervisor = harness.supervisor()
    monkeypatch.setattr(supervisor.artifacts, "put", full)
    supervisor.run()
    job = harness.job(job_id)
    assert (job.status, job.status_reason_code) == ("queued", "waiting_for_storage")
    assert "No space left" in job.status_reason_message
    assert job.not_before is not None


def test_concurrent_cancel_and_completion_end_the_job_once(harness):
    for delay in (0.0, 0.05, 0.1, 0.15):
        job_id = harness.submit(steps=20, seconds=0.01)
        thread = in_background(harness.supervisor())
        harness.until_step(job_id, 1)
        threading.Event().wait(delay)
        try:
            harness.do(actions.cancel, job_id)
        except Exception as error:
            assert getattr(error, "code", "") == "action_not_allowed"
        thread.join()
        assert harness.job(job_id).status in ("cancelled", "succeeded")
        assert sum(status in ("cancelled", "succeeded") for status in harness.statuses(job_id)) == 1
