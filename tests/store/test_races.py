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


def test_of_many_claiming_threads_one_wins(house):
    for _ in range(ROUNDS):
        job_id = house.submit()
        leases = at_once(*[partial(house.do, lifecycle.claim, "worker", 60)] * 8)
        assert [lease.job_id for lease in leases if lease] == [job_id]


def test_many_threads_share_a_queue_without_doubles(house):
    submitted = {house.submit() for _ in range(8)}
    leases = at_once(*[partial(house.do, lifecycle.claim, "worker", 60)] * 8)
    assert {lease.job_id for lease in leases if lease} <= submitted
    assert len(house.rows(select(Attempt))) == sum(lease is not None for lease in leases)


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
def test_of_many_claiming_processes_one_wins(house):
    spawn = multiprocessing.get_context("spawn")
    job_ids = [house.submit() for _ in range(20)]
    barrier, won = spawn.Barrier(PROCESSES), spawn.Queue()
    processes = [spawn.Process(target=claim_all, args=(house.url, job_ids, barrier, won)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    winners = [won.get(timeout=60) for _ in job_ids]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(winners) == sorted(job_ids) and won.empty()
    assert house.rows(select(func.max(Job.attempt))) == [1]


def test_cancel_and_completion_both_tell_the_truth(house):
    for _ in range(ROUNDS):
        lease = house.start()
        cancelled, settled = at_once(
            partial(house.do, actions.cancel, lease.job_id),
            partial(house.do, lifecycle.finish, lease, JobStatus.SUCCEEDED, EndReason.COMPLETED),
        )
        refused = isinstance(cancelled, ActionNotAllowed)
        assert settled == (JobStatus.SUCCEEDED if refused else JobStatus.CANCELLED)
        assert house.history(lease.job_id) == ["queued", "running", settled]


def test_cancel_and_claim_both_tell_the_truth(house):
    for _ in range(ROUNDS):
        job_id = house.submit()
        cancelled, lease = at_once(
            partial(house.do, actions.cancel, job_id),
            partial(house.do, lifecycle.claim, "worker", 60, job_id),
        )
        if lease is None:
            assert cancelled.status == JobStatus.CANCELLED
        else:
            assert house.do(lifecycle.renew, lease, 60).requested_action is RequestedAction.CANCEL


def test_two_reapers_take_a_lost_job_back_once(house):
    for _ in range(ROUNDS):
        lease = house.start()
        house.do(lambda session: session.execute(update(Job).values(lease_expires_at=1.0)))
        taken = at_once(*[partial(house.do, lifecycle.requeue_expired)] * 3)
        assert sorted(taken) == [[], [], [lease.job_id]]
        house.do(actions.cancel, lease.job_id)


def test_parallel_posts_under_one_idempotency_key_are_one_job(house):
    owner = house.do(api_keys.add, "me", api_keys.new_token()).id

    def post():
        return house.submit(key_id=owner, idempotency=Idempotency("k", "digest"))

    answers = at_once(*[post] * 12)
    [job_id] = house.rows(select(Job.id))
    assert answers.count(job_id) == 1
    assert {answer.job_id for answer in answers if isinstance(answer, AlreadySubmitted)} == {job_id}
    assert len({str(answer) for answer in answers}) == 2


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_writers_wait_for_one_that_is_slow(house):
    def slow(session):
        session.scalars(select(Job)).all()
        time.sleep(2)
        lifecycle.requeue_expired(session)

    answers = at_once(partial(house.do, slow), *[house.submit] * 8)
    assert len(house.rows(select(Job))) == 8
    assert not [answer for answer in answers if isinstance(answer, Exception)]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_readers_do_not_wait_for_a_writer(house):
    job_id = house.submit()
    with house.database.write() as session:
        actions.cancel(session, job_id)
        assert house.job(job_id).status == JobStatus.QUEUED
        session.commit()
    assert house.job(job_id).status == JobStatus.CANCELLED
