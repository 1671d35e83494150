import pytest
from sqlalchemy import select, update

from frs.events import Checkpoint, ErrorInfo, Progress
from store.db import api_keys
from store.db.idempotency import Idempotency
from store.db.tables import Attempt, Event, Job
from store.errors import ActionNotAllowed, AlreadySubmitted, IdempotencyKeyReused, JobNotFound, LeaseLost
from store.jobs import actions, lifecycle
from store.jobs.lease import RequestedAction
from store.jobs.recording import record, record_checkpoint
from store.scheduling import waiting
from store.states import MAX_WITHOUT_PROGRESS, Action, AttemptEnd, EndReason, JobStatus, WaitingReason, allowed_actions

TRAINING = Checkpoint(kind="training", path="a.pth", sha256="a" * 64, bytes=1, step=10, epoch=1)


def expire(harness, lease):
    harness.do(lambda session: session.execute(update(Job).where(Job.id == lease.job_id).values(lease_expires_at=1.0)))


def test_a_job_is_queued_claimed_and_finished(harness):
    lease = harness.start()
    running = harness.job(lease.job_id)
    assert (running.status, running.attempt, running.lease_owner) == (JobStatus.RUNNING, 1, "worker")
    assert running.lease_expires_at == lease.expires_at > running.started_at

    assert harness.do(lifecycle.finish, lease, JobStatus.SUCCEEDED, EndReason.COMPLETED) == JobStatus.SUCCEEDED
    ended = harness.job(lease.job_id)
    assert ended.end_reason == EndReason.COMPLETED
    assert ended.lease_owner is None and ended.lease_expires_at is None
    assert ended.created_at <= ended.started_at <= ended.finished_at
    assert harness.rows(select(Attempt.end)) == [AttemptEnd.SUCCEEDED]
    assert harness.history(lease.job_id) == ["queued", "running", "succeeded"]


def test_events_are_numbered_without_gaps(harness):
    lease = harness.start()
    harness.do(lifecycle.renew, lease, 60)
    harness.do(
        lifecycle.finish, lease, JobStatus.FAILED, EndReason.DIVERGED, ErrorInfo(code="diverged", message="NaN.")
    )
    assert harness.rows(select(Event.seq).order_by(Event.seq)) == [1, 2, 3]
    assert harness.job(lease.job_id).last_event == 3
    [last] = harness.rows(select(Event).where(Event.seq == 3))
    assert last.data == {"status": "failed", "reason": "diverged", "message": "NaN."}


def test_jobs_are_claimed_by_priority_then_age(harness):
    first, second, urgent = harness.submit(), harness.submit(), harness.submit()
    harness.do(lambda session: session.execute(update(Job).where(Job.id == urgent).values(priority=1)))
    assert [harness.claim().job_id for _ in range(3)] == [urgent, first, second]
    assert harness.do(lifecycle.claim, "worker", 60) is None


def test_a_renewed_lease_expires_later(harness):
    lease = harness.start()
    renewal = harness.do(lifecycle.renew, lease, 600)
    assert renewal.lease.expires_at > lease.expires_at + 500
    assert renewal.requested_action is RequestedAction.NONE


def test_a_returned_job_waits_for_its_delay_with_a_reason(harness):
    lease = harness.start()
    arguments = (lease, WaitingReason.STORAGE, "The disk is full.")
    assert harness.do(lifecycle.requeue, *arguments, delay=60, attempt_counts=False) == JobStatus.QUEUED
    assert harness.do(lifecycle.claim, "worker", 60) is None
    reason = harness.do(waiting.waiting_reason, harness.job(lease.job_id))
    assert (reason.code, reason.message) == (WaitingReason.STORAGE, "The disk is full.")

    harness.do(lambda session: session.execute(update(Job).values(not_before=1.0)))
    assert harness.do(waiting.waiting_reason, harness.job(lease.job_id)).code == WaitingReason.WORKER
    assert harness.claim().attempt == 2
    assert harness.do(waiting.waiting_reason, harness.job(lease.job_id)) is None
    assert harness.rows(select(Attempt.end).order_by(Attempt.number)) == [AttemptEnd.RELEASED, None]


def test_a_queued_job_is_cancelled_immediately(harness):
    job_id = harness.submit()
    cancelled = harness.do(actions.cancel, job_id)
    assert cancelled.status == JobStatus.CANCELLED
    assert cancelled.created_at <= cancelled.cancel_requested_at <= cancelled.finished_at
    assert harness.job(job_id).end_reason == EndReason.CANCELLED_BY_USER
    assert harness.do(lifecycle.claim, "worker", 60) is None


def test_repeated_cancels_of_a_running_job_are_one_request(harness):
    lease = harness.start()
    for _ in range(2):
        assert harness.do(actions.cancel, lease.job_id).status == JobStatus.RUNNING
    assert harness.do(lifecycle.renew, lease, 60).requested_action is RequestedAction.CANCEL
    assert harness.rows(select(Event.type).order_by(Event.seq)) == ["status", "status", "cancel_requested"]


def test_an_accepted_cancel_takes_precedence_over_the_outcome(harness):
    lease = harness.start()
    harness.do(actions.cancel, lease.job_id)
    assert harness.do(lifecycle.finish, lease, JobStatus.SUCCEEDED, EndReason.COMPLETED) == JobStatus.CANCELLED
    assert harness.job(lease.job_id).end_reason == EndReason.CANCELLED_BY_USER


def test_an_accepted_cancel_ends_a_returned_job(harness):
    lease = harness.start()
    harness.do(actions.cancel, lease.job_id)
    assert harness.do(lifecycle.requeue, lease, attempt_counts=False) == JobStatus.CANCELLED


def test_an_ended_job_cannot_be_cancelled(harness):
    lease = harness.start()
    harness.do(lifecycle.finish, lease, JobStatus.SUCCEEDED, EndReason.COMPLETED)
    with pytest.raises(ActionNotAllowed) as error:
        harness.do(actions.cancel, lease.job_id)
    assert error.value.allowed_actions == [Action.DELETE]
    with pytest.raises(JobNotFound):
        harness.do(actions.cancel, "job_00000000000000000000000000")


def test_each_status_has_its_allowed_actions():
    allowed = {status.value: [action.value for action in allowed_actions(status)] for status in JobStatus}
    assert allowed == {
        "queued": ["cancel", "pause"],
        "running": ["cancel", "stop", "pause"],
        "paused": ["cancel", "resume"],
        "succeeded": ["delete"],
        "failed": ["resume", "retry", "delete"],
        "cancelled": ["resume", "retry", "delete"],
    }


def test_an_expired_lease_returns_the_job_and_its_attempt_can_write_no_more(harness):
    lease = harness.start()
    assert harness.do(lifecycle.requeue_expired) == []
    expire(harness, lease)
    assert harness.do(lifecycle.requeue_expired) == [lease.job_id]
    assert harness.rows(select(Attempt.end)) == [AttemptEnd.LOST]
    second = harness.claim()
    assert second.attempt == 2
    with pytest.raises(LeaseLost):
        harness.do(lifecycle.renew, lease, 60)
    with pytest.raises(LeaseLost):
        harness.do(lifecycle.finish, lease, JobStatus.SUCCEEDED, EndReason.COMPLETED)
    with pytest.raises(LeaseLost):
        harness.do(lifecycle.requeue, lease, attempt_counts=True)
    assert harness.job(lease.job_id).attempt == 2
    assert harness.history(lease.job_id) == ["queued", "running", "queued", "running"]


def test_the_last_attempt_of_an_ended_or_returned_job_can_write_no_more(harness):
    finished, returned = harness.start(), harness.start()
    harness.do(lifecycle.finish, finished, JobStatus.SUCCEEDED, EndReason.COMPLETED)
    harness.do(lifecycle.requeue, returned, attempt_counts=False)
    for lease in (finished, returned):
        with pytest.raises(LeaseLost):
            harness.do(lifecycle.renew, lease, 60)
        with pytest.raises(LeaseLost):
            harness.do(lifecycle.finish, lease, JobStatus.FAILED, EndReason.INTERNAL_ERROR)
    assert harness.history(finished.job_id) == ["queued", "running", "succeeded"]
    assert harness.history(returned.job_id) == ["queued", "running", "queued"]


def test_a_lost_job_whose_cancel_was_accepted_ends_as_cancelled(harness):
    lease = harness.start()
    harness.do(actions.cancel, lease.job_id)
    expire(harness, lease)
    assert harness.do(lifecycle.requeue_expired) == []
    assert harness.job(lease.job_id).status == JobStatus.CANCELLED


def test_three_lost_attempts_without_a_checkpoint_fail_no_job(harness):
    """Three restarts of a host in a row are planned maintenance, not a fault of the job."""
    job_id = harness.submit()
    for _ in range(3):
        expire(harness, harness.claim(job_id))
        harness.do(lifecycle.requeue_expired)
    assert harness.job(job_id).status == JobStatus.QUEUED
    assert harness.do(lifecycle.requeue, harness.claim(job_id), attempt_counts=True) == JobStatus.QUEUED


@pytest.mark.parametrize("end", MAX_WITHOUT_PROGRESS)
def test_a_job_whose_attempts_keep_dying_without_a_checkpoint_is_poison(harness, end):
    job_id = harness.submit()
    for _ in range(MAX_WITHOUT_PROGRESS[end]):
        assert harness.job(job_id).status == JobStatus.QUEUED
        lease = harness.claim(job_id)
        if end == AttemptEnd.CRASHED:
            harness.do(lifecycle.requeue, lease, attempt_counts=True)
        else:
            expire(harness, lease)
            harness.do(lifecycle.requeue_expired)
    job = harness.job(job_id)
    assert (job.status, job.end_reason, job.error["code"]) == (JobStatus.FAILED, EndReason.POISON, "poison")


def test_a_checkpoint_or_a_clean_release_prevents_poison(harness):
    job_id = harness.submit()
    for number in range(1, 7):
        lease = harness.claim(job_id)
        if number == 3:
            harness.do(record_checkpoint, lease, TRAINING, "a/b")
        harness.do(lifecycle.requeue, lease, attempt_counts=number != 4)
    assert harness.job(job_id).status == JobStatus.QUEUED  # since attempt 3, attempts 5 and 6 died; 4 does not count
    assert harness.do(lifecycle.requeue, harness.claim(job_id), attempt_counts=True) == JobStatus.FAILED


def test_a_student_waits_for_its_teacher(harness):
    teacher = harness.submit()
    student = harness.submit(teacher_job_id=teacher)
    lease = harness.claim()
    assert lease.job_id == teacher
    assert harness.do(lifecycle.claim, "worker", 60, student) is None
    assert harness.do(waiting.waiting_reason, harness.job(student)).code == WaitingReason.DETECTOR

    harness.do(lifecycle.finish, lease, JobStatus.SUCCEEDED, EndReason.COMPLETED)
    assert harness.do(lifecycle.fail_dependents) == []
    assert harness.do(waiting.waiting_reason, harness.job(student)).code == WaitingReason.WORKER
    assert harness.claim().job_id == student


def test_a_student_fails_with_its_teacher(harness):
    teacher = harness.submit()
    student = harness.submit(teacher_job_id=teacher)
    harness.do(actions.cancel, teacher)
    assert harness.do(lifecycle.fail_dependents) == [student]
    job = harness.job(student)
    assert (job.status, job.end_reason) == (JobStatus.FAILED, EndReason.DEPENDENCY_FAILED)
    assert teacher in job.error["message"]


def test_the_same_request_with_the_same_idempotency_key_is_one_job(harness):
    owner = harness.do(api_keys.add, "me", api_keys.new_token()).id
    job_id = harness.submit(key_id=owner, idempotency=Idempotency("k", "digest"))
    with pytest.raises(AlreadySubmitted) as earlier:
        harness.submit(key_id=owner, idempotency=Idempotency("k", "digest"))
    assert earlier.value.job_id == job_id
    with pytest.raises(IdempotencyKeyReused):
        harness.submit(key_id=owner, idempotency=Idempotency("k", "another"))
    assert harness.rows(select(Job.id)) == [job_id]


def test_different_owners_may_use_the_same_idempotency_key(harness):
    job_ids = {harness.submit(owner=owner, idempotency=Idempotency("k", "digest")) for owner in ("me", "you")}
    assert len(job_ids) == 2


def test_the_history_contains_why_a_job_was_returned_to_the_queue(harness):
    lease = harness.start()
    harness.do(lifecycle.requeue, lease, attempt_counts=True)
    expire(harness, harness.claim())
    harness.do(lifecycle.requeue_expired)
    harness.do(lifecycle.requeue, harness.claim(), attempt_counts=False)
    events = harness.rows(select(Event).where(Event.type == "status").order_by(Event.seq))
    assert [event.data["message"] for event in events if event.data["status"] == "queued"] == [
        None,
        "Attempt 1: the trainer died.",
        "Attempt 2: the lease expired, because the worker, its host or the database failed.",
        "Attempt 3: the worker returned the job to the queue.",
    ]


def test_the_next_attempt_does_not_inherit_the_speed_of_the_one_before(harness):
    lease = harness.start()
    progress = Progress(epoch=1, epochs=2, step=7, steps=20, fraction=0.35, eta_seconds=600.0, images_per_second=4.0)
    harness.do(record, lease, [progress])
    harness.do(lifecycle.requeue, lease, attempt_counts=False)
    harness.claim(lease.job_id)
    stored = harness.job(lease.job_id).progress
    assert (stored["step"], stored["eta_seconds"], stored["images_per_second"]) == (7, None, None)
