import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import func, select, update

from store.db import api_keys
from store.db.database import open_database
from store.db.idempotency import Idempotency
from store.db.tables import Attempt, Job
from store.errors import ActionNotAllowed, AlreadySubmitted
from store.jobs import actions, lifecycle
from store.jobs.lease import RequestedAction
from store.states import EndReason, JobStatus

ROUNDS = 20
PROCESSES = 8


def run_concurrently(*calls):
    """Start the calls together; return their results or the exceptions they raised."""
    barrier = threading.Barrier(len(calls))

    def run(call):
        barrier.wait()
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def test_only_one_of_many_threads_claims_a_job(harness):
    for _ in range(ROUNDS):
        job_id = harness.submit()
        leases = run_concurrently(*[partial(harness.do, lifecycle.claim, "worker", 60)] * 8)
        assert [lease.job_id for lease in leases if lease] == [job_id]


def test_concurrent_threads_never_claim_a_job_twice(harness):
    submitted = {harness.submit() for _ in range(8)}
    leases = run_concurrently(*[partial(harness.do, lifecycle.claim, "worker", 60)] * 8)
    assert {lease.job_id for lease in leases if lease} <= submitted
    assert len(harness.rows(select(Attempt))) == sum(lease is not None for lease in leases)


def claim_all(url, job_ids, barrier, claimed):
    """Try to claim each job at the same time as the other processes; put the claimed ids into the queue."""
    database = open_database(url)
    for job_id in job_ids:
        barrier.wait()
        with database.write() as session:
            lease = lifecycle.claim(session, "worker", 60, job_id)
            session.commit()
        if lease:
            claimed.put(job_id)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_only_one_of_many_processes_claims_a_job(harness):
    spawn = multiprocessing.get_context("spawn")
    job_ids = [harness.submit() for _ in range(20)]
    barrier, claimed = spawn.Barrier(PROCESSES), spawn.Queue()
    processes = [
        spawn.Process(target=claim_all, args=(harness.url, job_ids, barrier, claimed)) for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    claims = [claimed.get(timeout=60) for _ in job_ids]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(claims) == sorted(job_ids) and claimed.empty()
    assert harness.rows(select(func.max(Job.attempt))) == [1]


def test_concurrent_cancel_and_completion_agree(harness):
    for _ in range(ROUNDS):
        lease = harness.start()
        cancelled, status = run_concurrently(
            partial(harness.do, actions.cancel, lease.job_id),
            partial(harness.do, lifecycle.finish, lease, JobStatus.SUCCEEDED, EndReason.COMPLETED),
        )
        not_allowed = isinstance(cancelled, ActionNotAllowed)
        assert status == (JobStatus.SUCCEEDED if not_allowed else JobStatus.CANCELLED)
        assert harness.history(lease.job_id) == ["queued", "running", status]


def test_concurrent_cancel_and_claim_agree(harness):
    for _ in range(ROUNDS):
        job_id = harness.submit()
        cancelled, lease = run_concurrently(
            partial(harness.do, actions.cancel, job_id),
            partial(harness.do, lifecycle.claim, "worker", 60, job_id),
        )
        if lease is None:
            assert cancelled.status == JobStatus.CANCELLED
        else:
            assert harness.do(lifecycle.renew, lease, 60).requested_action is RequestedAction.CANCEL


def test_concurrent_reapers_requeue_a_lost_job_once(harness):
    for _ in range(ROUNDS):
        lease = harness.start()
        harness.do(lambda session: session.execute(update(Job).values(lease_expires_at=1.0)))
        requeued = run_concurrently(*[partial(harness.do, lifecycle.requeue_expired)] * 3)
        assert sorted(requeued) == [[], [], [lease.job_id]]
        harness.do(actions.cancel, lease.job_id)


def test_concurrent_requests_with_one_idempotency_key_are_one_job(harness):
    owner = harness.do(api_keys.add, "me", api_keys.new_token()).id

    def post():
        return harness.submit(key_id=owner, idempotency=Idempotency("k", "digest"))

    results = run_concurrently(*[post] * 12)
    [job_id] = harness.rows(select(Job.id))
    assert results.count(job_id) == 1
    assert {result.job_id for result in results if isinstance(result, AlreadySubmitted)} == {job_id}
    assert len({str(result) for result in results}) == 2


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_readers_do_not_wait_for_a_writer(harness):
    job_id = harness.submit()
    with harness.database.write() as session:
        actions.cancel(session, job_id)
        assert harness.job(job_id).status == JobStatus.QUEUED
        session.commit()
    assert harness.job(job_id).status == JobStatus.CANCELLED
