"""F9, F13, F17, F18, F19: concurrent operations on one job, and values that are not finite."""

import json
import math
import multiprocessing
import time
from functools import partial

import oracle
import pytest
from sqlalchemy import func, select
from test_faults_any_call import SPEC, client  # noqa: F401
from test_races import claim_all, run_concurrently

from frs import events
from store.db.tables import Attempt, Job
from store.errors import ActionNotAllowed
from store.jobs import actions, lifecycle, recording
from store.states import EndReason, JobStatus


def many(fast, *slow):
    marks = [pytest.mark.slow, pytest.mark.timeout(3600)]
    return [pytest.param(*fast), *(pytest.param(*size, marks=marks) for size in slow)]


@pytest.mark.parametrize(("processes", "rounds"), many((4, 50), (8, 50), (32, 1000)))
def test_one_of_many_processes_claims_a_job(harness, processes, rounds):
    spawn = multiprocessing.get_context("spawn")
    job_ids = [harness.submit() for _ in range(rounds)]
    barrier, won = spawn.Barrier(processes), spawn.Queue()
    started = [spawn.Process(target=claim_all, args=(harness.url, job_ids, barrier, won)) for _ in range(processes)]
    for process in started:
        process.start()
    winners = [won.get(timeout=250) for _ in job_ids]
    for process in started:
        process.join()
        assert process.exitcode == 0
    assert sorted(winners) == sorted(job_ids) and won.empty()
    assert harness.rows(select(func.count()).select_from(Attempt)) == [rounds]
    oracle.check(harness.database)


@pytest.mark.parametrize("rounds", many([50], [1000]))
def test_concurrent_cancel_and_completion_end_the_job_once(harness, rounds):
    for _ in range(rounds):
        lease = harness.start()
        cancelled, settled = run_concurrently(
            partial(harness.do, actions.cancel, lease.job_id),
            partial(harness.do, lifecycle.finish, lease, JobStatus.SUCCEEDED, EndReason.COMPLETED),
        )
        refused = isinstance(cancelled, ActionNotAllowed)
        assert settled == (JobStatus.SUCCEEDED if refused else JobStatus.CANCELLED)
    oracle.check(harness.database, None, oracle.Expected(acknowledged=harness.rows(select(Job.id))))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_fifty_concurrent_posts_with_one_key_create_one_job(client):  # noqa: F811
    post = partial(client.post, "/jobs", json=SPEC, headers={"Idempotency-Key": "the-same"})
    answers = run_concurrently(*[post] * 50)
    job_ids = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    assert {answer.status_code for answer in answers} <= {201, 503} and len(job_ids) == 1
    assert post().json()["id"] in job_ids
    assert client.get("/jobs").json()["data"][0]["id"] in job_ids
    oracle.check(client.app.state.context.database, None, oracle.Expected(unfinished=job_ids))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_eight_writers_wait_for_a_lock_held_for_five_seconds(harness):
    def hold(session):
        session.scalars(select(Job)).all()
        time.sleep(5)  # the fault: a lock held for as long as sqlite3 waits by default

    answers = run_concurrently(partial(harness.do, hold), *[harness.submit] * 8)
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert len(harness.rows(select(Job))) == 8


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_leaves_valid_json(harness, value):
    lease = harness.start()
    harness.do(recording.record, lease, [events.Facts(values={"loss": value}), events.Log(message=str(value))])
    harness.do(lifecycle.finish, lease, JobStatus.FAILED, EndReason.DIVERGED)
    facts = harness.job(lease.job_id).facts
    assert facts == {"loss": None} and json.dumps(facts, allow_nan=False)
    oracle.check(harness.database)
