"""A requested action reaches the trainer of a running job, and the job gets the requested status."""

from sqlalchemy import select
from worker_harness import WorkerHarness, in_background

from store.db.tables import Attempt, Checkpoint, Event
from store.jobs import actions
from worker.attempt.trainer_run import Interruption


def test_a_running_job_is_paused_at_a_checkpoint_and_resumes_from_it(harness: WorkerHarness) -> None:
    uninterrupted = harness.run(steps=60)
    job_id = harness.submit(steps=60, seconds=0.03)
    thread = in_background(harness.supervisor())
    harness.until_step(job_id, 7)
    harness.do(actions.pause, job_id)
    thread.join()
    paused = harness.job(job_id)
    assert (paused.status, paused.pause_requested_at, paused.lease_owner) == ("paused", None, None)
    last_step = max(harness.steps(job_id))
    harness.do(actions.resume, job_id)
    harness.supervisor().run()
    assert harness.statuses(job_id) == ["queued", "running", "paused", "queued", "running", "succeeded"]
    assert harness.losses(job_id) == harness.losses(uninterrupted.id)
    starts = select(Attempt.start_step).where(Attempt.job_id == job_id).order_by(Attempt.number)
    assert harness.rows(starts) == [0, last_step]


def test_a_running_job_that_is_stopped_early_succeeds_with_its_weights(harness: WorkerHarness) -> None:
    job_id = harness.submit(steps=10_000, seconds=0.01)
    thread = in_background(harness.supervisor())
    harness.until_step(job_id, 7)
    harness.do(actions.stop, job_id)
    thread.join()
    job = harness.job(job_id)
    assert (job.status, job.end_reason) == ("succeeded", "stopped_early")
    last = max(harness.steps(job_id))
    students = select(Checkpoint.step).where(Checkpoint.job_id == job_id, Checkpoint.kind == "student")
    assert 7 <= last < 10_000 and harness.rows(students) == [last]


def test_a_stop_request_survives_a_crash_of_the_trainer(harness: WorkerHarness) -> None:
    job_id = harness.submit(steps=10_000, seconds=0.01, crash_at=12)
    harness.supervisor().run()
    harness.do(lambda session: session.execute(harness.stop_request(job_id)))
    harness.supervisor().run()
    job = harness.job(job_id)
    assert (job.status, job.end_reason, job.attempt) == ("succeeded", "stopped_early", 2)


def test_a_job_is_paused_even_if_its_trainer_has_to_be_killed(harness: WorkerHarness) -> None:
    job_id = harness.submit(steps=10_000, hang_at=10)
    thread = in_background(harness.supervisor(grace_seconds=0.5))
    harness.until_step(job_id, 9)
    harness.do(actions.pause, job_id)
    thread.join()
    assert harness.job(job_id).status == "paused"


def test_a_cancel_takes_precedence_over_a_pause(harness: WorkerHarness) -> None:
    job_id = harness.submit(steps=10_000, hang_at=10)
    thread = in_background(harness.supervisor(grace_seconds=30))
    harness.until_step(job_id, 9)
    harness.do(actions.pause, job_id)
    harness.do(actions.cancel, job_id)
    thread.join()
    assert harness.job(job_id).status == "cancelled"


def test_a_retried_job_starts_from_scratch_without_its_old_data(harness: WorkerHarness) -> None:
    job = harness.run(steps=20, fail="diverged")
    assert (job.status, job.end_reason) == ("failed", "diverged")
    _, keys = harness.do(actions.retry, job.id)
    assert harness.steps(job.id) == [] and len(keys) == 3
    harness.do(
        lambda session: setattr(harness.job_row(session, job.id), "spec", harness.without_option(job.spec, "fail"))
    )
    harness.supervisor().run()
    assert (harness.job(job.id).status, harness.steps(job.id)[0]) == ("succeeded", 1)
    starts = select(Attempt.start_step).where(Attempt.job_id == job.id).order_by(Attempt.number)
    assert harness.rows(starts) == [0, 0]


def test_a_repeated_request_is_one_event_of_the_job(harness: WorkerHarness) -> None:
    job_id = harness.submit(steps=10_000, seconds=0.01)
    thread = in_background(harness.supervisor())
    harness.until_step(job_id, 3)
    harness.do(actions.stop, job_id)
    harness.do(actions.stop, job_id)
    thread.join()
    requests = select(Event.type).where(Event.job_id == job_id, Event.type == "stop_requested")
    assert harness.rows(requests) == ["stop_requested"]


def test_a_job_can_be_paused_before_its_trainer_starts(harness: WorkerHarness) -> None:
    job_id = harness.submit()
    supervisor = harness.supervisor()
    harness.do(actions.pause, job_id)
    supervisor.trainer.stop(within=0)
    supervisor.run()
    assert harness.job(job_id).status == "paused"


def test_a_pause_that_kills_the_trainer_during_startup_counts_no_attempt(harness: WorkerHarness) -> None:
    job_id = harness.submit(steps=10_000, crash_at=5)
    supervisor = harness.supervisor()
    harness.do(actions.pause, job_id)
    supervisor.interruption = Interruption.PAUSE
    supervisor.run()
    [end] = harness.rows(select(Attempt.end).where(Attempt.job_id == job_id))
    assert (harness.job(job_id).status, end) == ("paused", "released")
