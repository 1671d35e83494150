"""What is asked of a running job reaches its trainer, and the job ends up where it was asked to."""

from sqlalchemy import select
from worker_harness import WorkerHarness, in_background

from store.db.tables import Attempt, Checkpoint, Event
from store.jobs import actions
from store.jobs.lease import RequestedAction


def test_a_running_job_is_paused_at_a_checkpoint_and_goes_on_from_it(harness: WorkerHarness) -> None:
    whole = harness.run(steps=60)
    job_id = harness.submit(steps=60, seconds=0.03)
    thread = in_background(harness.supervisor())
    harness.until_step(job_id, 7)
    harness.do(actions.pause, job_id)
    thread.join()
    paused = harness.job(job_id)
    assert (paused.status, paused.pause_requested_at, paused.lease_owner) == ("paused", None, None)
    reached = max(harness.steps(job_id))
    harness.do(actions.resume, job_id)
    harness.supervisor().run()
    assert harness.statuses(job_id) == ["queued", "running", "paused", "queued", "running", "succeeded"]
    assert harness.losses(job_id) == harness.losses(whole.id)
    starts = select(Attempt.start_step).where(Attempt.job_id == job_id).order_by(Attempt.number)
    assert harness.rows(starts) == [0, reached]


def test_a_running_job_is_stopped_early_and_succeeds_with_what_it_learned(harness: WorkerHarness) -> None:
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


def test_a_stop_outlives_the_death_of_the_trainer(harness: WorkerHarness) -> None:
    job_id = harness.submit(steps=10_000, seconds=0.01, crash_at=12)
    harness.supervisor().run()
    harness.do(lambda session: session.execute(harness.stop_requested(job_id)))
    harness.supervisor().run()
    job = harness.job(job_id)
    assert (job.status, job.end_reason, job.attempt) == ("succeeded", "stopped_early", 2)


def test_a_pause_of_a_job_whose_trainer_dies_meanwhile_is_kept(harness: WorkerHarness) -> None:
    job_id = harness.submit(steps=10_000, hang_at=10)
    thread = in_background(harness.supervisor(grace_seconds=0.5))
    harness.until_step(job_id, 9)
    harness.do(actions.pause, job_id)
    thread.join()
    assert harness.job(job_id).status == "paused"


def test_a_cancel_wins_over_a_pause(harness: WorkerHarness) -> None:
    job_id = harness.submit(steps=10_000, hang_at=10)
    thread = in_background(harness.supervisor(grace_seconds=30))
    harness.until_step(job_id, 9)
    harness.do(actions.pause, job_id)
    harness.do(actions.cancel, job_id)
    thread.join()
    assert harness.job(job_id).status == "cancelled"


def test_a_failed_job_is_tried_again_from_scratch_and_leaves_nothing_of_before(harness: WorkerHarness) -> None:
    job = harness.run(steps=20, fail="diverged")
    assert (job.status, job.end_reason) == ("failed", "diverged")
    _, keys = harness.do(actions.retry, job.id)
    assert harness.steps(job.id) == [] and len(keys) == 3
    harness.do(lambda session: setattr(harness.job_in(session, job.id), "spec", harness.without_wish(job.spec, "fail")))
    harness.supervisor().run()
    assert (harness.job(job.id).status, harness.steps(job.id)[0]) == ("succeeded", 1)
    starts = select(Attempt.start_step).where(Attempt.job_id == job.id).order_by(Attempt.number)
    assert harness.rows(starts) == [0, 0]


def test_requests_are_events_of_the_job(harness: WorkerHarness) -> None:
    job_id = harness.submit(steps=10_000, seconds=0.01)
    thread = in_background(harness.supervisor())
    harness.until_step(job_id, 3)
    harness.do(actions.stop, job_id)
    harness.do(actions.stop, job_id)
    thread.join()
    asked = select(Event.type).where(Event.job_id == job_id, Event.type == "stop_requested")
    assert harness.rows(asked) == ["stop_requested"]


def test_a_pause_before_the_trainer_has_begun_is_a_pause(harness: WorkerHarness) -> None:
    job_id = harness.submit()
    supervisor = harness.supervisor()
    harness.do(actions.pause, job_id)
    supervisor.trainer.stop(within=0)
    supervisor.run()
    assert harness.job(job_id).status == "paused"


def test_a_pause_that_kills_a_trainer_before_it_listens_counts_against_nobody(harness: WorkerHarness) -> None:
    job_id = harness.submit(steps=10_000, crash_at=5)
    supervisor = harness.supervisor()
    harness.do(actions.pause, job_id)
    supervisor.heartbeat.requested_action = RequestedAction.PAUSE
    supervisor.run()
    [end] = harness.rows(select(Attempt.end).where(Attempt.job_id == job_id))
    assert (harness.job(job_id).status, end) == ("paused", "released")
