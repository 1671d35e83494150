"""What is asked of a running job reaches its trainer, and the job ends up where it was asked to."""

from sqlalchemy import select
from worker_house import House, in_background

from store.db.tables import Attempt, Checkpoint, Event
from store.jobs import actions
from store.jobs.lease import RequestedAction


def test_a_running_job_is_paused_at_a_checkpoint_and_goes_on_from_it(house: House) -> None:
    whole = house.run(steps=60)
    job_id = house.submit(steps=60, seconds=0.03)
    thread = in_background(house.supervisor())
    house.until_step(job_id, 7)
    house.do(actions.pause, job_id)
    thread.join()
    paused = house.job(job_id)
    assert (paused.status, paused.pause_requested_at, paused.lease_owner) == ("paused", None, None)
    reached = max(house.steps(job_id))
    house.do(actions.resume, job_id)
    house.supervisor().run()
    assert house.statuses(job_id) == ["queued", "running", "paused", "queued", "running", "succeeded"]
    assert house.losses(job_id) == house.losses(whole.id)
    starts = select(Attempt.start_step).where(Attempt.job_id == job_id).order_by(Attempt.number)
    assert house.rows(starts) == [0, reached]


def test_a_running_job_is_stopped_early_and_succeeds_with_what_it_learned(house: House) -> None:
    job_id = house.submit(steps=10_000, seconds=0.01)
    thread = in_background(house.supervisor())
    house.until_step(job_id, 7)
    house.do(actions.stop, job_id)
    thread.join()
    job = house.job(job_id)
    assert (job.status, job.end_reason) == ("succeeded", "stopped_early")
    last = max(house.steps(job_id))
    students = select(Checkpoint.step).where(Checkpoint.job_id == job_id, Checkpoint.kind == "student")
    assert 7 <= last < 10_000 and house.rows(students) == [last]


def test_a_stop_outlives_the_death_of_the_trainer(house: House) -> None:
    job_id = house.submit(steps=10_000, seconds=0.01, crash_at=12)
    house.supervisor().run()
    house.do(lambda session: session.execute(house.stop_requested(job_id)))
    house.supervisor().run()
    job = house.job(job_id)
    assert (job.status, job.end_reason, job.attempt) == ("succeeded", "stopped_early", 2)


def test_a_pause_of_a_job_whose_trainer_dies_meanwhile_is_kept(house: House) -> None:
    job_id = house.submit(steps=10_000, hang_at=10)
    thread = in_background(house.supervisor(grace_seconds=0.5))
    house.until_step(job_id, 9)
    house.do(actions.pause, job_id)
    thread.join()
    assert house.job(job_id).status == "paused"


def test_a_cancel_wins_over_a_pause(house: House) -> None:
    job_id = house.submit(steps=10_000, hang_at=10)
    thread = in_background(house.supervisor(grace_seconds=30))
    house.until_step(job_id, 9)
    house.do(actions.pause, job_id)
    house.do(actions.cancel, job_id)
    thread.join()
    assert house.job(job_id).status == "cancelled"


def test_a_failed_job_is_tried_again_from_scratch_and_leaves_nothing_of_before(house: House) -> None:
    job = house.run(steps=20, fail="diverged")
    assert (job.status, job.end_reason) == ("failed", "diverged")
    _, keys = house.do(actions.retry, job.id)
    assert house.steps(job.id) == [] and len(keys) == 3
    house.do(lambda session: setattr(house.job_in(session, job.id), "spec", house.without_wish(job.spec, "fail")))
    house.supervisor().run()
    assert (house.job(job.id).status, house.steps(job.id)[0]) == ("succeeded", 1)
    starts = select(Attempt.start_step).where(Attempt.job_id == job.id).order_by(Attempt.number)
    assert house.rows(starts) == [0, 0]


def test_requests_are_events_of_the_job(house: House) -> None:
    job_id = house.submit(steps=10_000, seconds=0.01)
    thread = in_background(house.supervisor())
    house.until_step(job_id, 3)
    house.do(actions.stop, job_id)
    house.do(actions.stop, job_id)
    thread.join()
    asked = select(Event.type).where(Event.job_id == job_id, Event.type == "stop_requested")
    assert house.rows(asked) == ["stop_requested"]


def test_a_pause_before_the_trainer_has_begun_is_a_pause(house: House) -> None:
    job_id = house.submit()
    supervisor = house.supervisor()
    house.do(actions.pause, job_id)
    supervisor.trainer.stop(within=0)
    supervisor.run()
    assert house.job(job_id).status == "paused"


def test_a_pause_that_kills_a_trainer_before_it_listens_counts_against_nobody(house: House) -> None:
    job_id = house.submit(steps=10_000, crash_at=5)
    supervisor = house.supervisor()
    house.do(actions.pause, job_id)
    supervisor.heartbeat.requested_action = RequestedAction.PAUSE
    supervisor.run()
    [end] = house.rows(select(Attempt.end).where(Attempt.job_id == job_id))
    assert (house.job(job_id).status, end) == ("paused", "released")
