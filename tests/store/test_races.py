import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import func, select, update

from store.db import api_keys
from store.db.database import open_database
from store.db.tables import Attempt, Job
from store.errors import ActionNotAllowed, AlreadySubmitted
from store.jobs import actions, lifecycle
from store.jobs.lease import RequestedAction
from store.jobs.lifecycle import Idempotency
from store.states import EndReason, JobStatus

ROUNDS = 20
PROCESSES = 8


def at_once(*calls):
    """The results of calls that start together, or the exceptions they raised."""
    barrier = threading.Barrier(len(calls))

    def run(call):
        barrier.wait()
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def test_of_many_claiming_threads_one_wins(harness):
    for _ in range(ROUNDS):
        job_id = harness.submit()
        leases = at_once(*[partial(harness.do, lifecycle.claim, "worker", 60)] * 8)
        assert [lease.job_id for lease in leases if lease] == [job_id]


def test_many_threads_share_a_queue_without_doubles(harness):
    submitted = {harness.submit() for _ in range(8)}
    leases = at_once(*[partial(harness.do, lifecycle.claim, "worker", 60)] * 8)
    assert {lease.job_id for lease in leases if lease} <= submitted
    assert len(harness.rows(select(Attempt))) == sum(lease is not None for lease in leases)


def claim_all(url, job_ids, barrier, won):
    database = open_database(url)
    for job_id in job_ids:
        barrier.wait()
        with database.write() as session:
            lease = lifecycle.claim(session, "worker", 60, job_id)
            session.commit()
        if lease:
            won.put(job_id)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_of_many_claiming_processes_one_wins(harness):
    spawn = multiprocessing.get_context("spawn")
    job_ids = [harness.submit() for _ in range(20)]
    barrier, won = spawn.Barrier(PROCESSES), spawn.Queue()
    processes = [spawn.Process(target=claim_all, args=(harness.url, job_ids, barrier, won)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    winners = [won.get(timeout=60) for _ in job_ids]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(winners) == sorted(job_ids) and won.empty()
    assert harness.rows(select(func.max(Job.attempt))) == [1]


def test_cancel_and_completion_both_tell_the_truth(harness):
    for _ in range(ROUNDS):
        lease = harness.start()
        cancelled, settled = at_once(
            partial(harness.do, actions.cancel, lease.job_id),
            partial(harness.do, lifecycle.finish, lease, JobStatus.SUCCEEDED, EndReason.COMPLETED),
        )
        refused = isinstance(cancelled, ActionNotAllowed)
        assert settled == (JobStatus.SUCCEEDED if refused else JobStatus.CANCELLED)
        assert harness.history(lease.job_id) == ["queued", "running", settled]


def test_cancel_and_claim_both_tell_the_truth(harness):
    for _ in range(ROUNDS):
        job_id = harness.submit()
        cancelled, lease = at_once(
            partial(harness.do, actions.cancel, job_id),
            partial(harness.do, lifecycle.claim, "worker", 60, job_id),
        )
        if lease is None:
            assert cancelled.status == JobStatus.CANCELLED
        else:
            assert harness.do(lifecycle.renew, lease, 60).requested_action is RequestedAction.CANCEL


def test_two_reapers_take_a_lost_job_back_once(harness):
    for _ in range(ROUNDS):
        lease = harness.start()
        harness.do(lambda session: session.execute(update(Job).values(lease_expires_at=1.0)))
        taken = at_once(*[partial(harness.do, lifecycle.requeue_expired)] * 3)
        assert sorted(taken) == [[], [], [lease.job_id]]
        harness.do(actions.cancel, lease.job_id)


def test_parallel_posts_under_one_idempotency_key_are_one_job(harness):
    owner = harness.do(api_keys.add, "me", api_keys.new_token()).id

    def post():
        return harness.submit(key_id=owner, idempotency=Idempotency("k", "digest"))

    answers = at_once(*[post] * 12)
    [job_id] = harness.rows(select(Job.id))
    assert answers.count(job_id) == 1
    assert {answer.job_id for answer in answers if isinstance(answer, AlreadySubmitted)} == {job_id}
    assert len({str(answer) for answer in answers}) == 2


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_writers_wait_for_one_that_is_slow(harness):
    def slow(session):
        session.scalars(select(Job)).all()
        time.sleep(2)
        lifecycle.requeue_expired(session)

    answers = at_once(partial(harness.do, slow), *[harness.submit] * 8)
    assert len(harness.rows(select(Job))) == 8
    assert not [answer for answer in answers if isinstance(answer, Exception)]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_readers_do_not_wait_for_a_writer(harness):
    job_id = harness.submit()
    with harness.database.write() as session:
        actions.cancel(session, job_id)
        assert harness.job(job_id).status == JobStatus.QUEUED
        session.commit()
    assert harness.job(job_id).status == JobStatus.CANCELLED
