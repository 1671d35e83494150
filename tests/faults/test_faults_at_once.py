"""F9, F13, F17, F18, F19: many at the same thing in the same moment, and numbers that are none."""

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


def many(fast, slow):
    return [pytest.param(*fast), pytest.param(*slow, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]


@pytest.mark.parametrize(("processes", "rounds"), many((8, 50), (32, 1000)))
def test_of_many_processes_claiming_one_job_one_wins(harness, processes, rounds):
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
def test_cancel_and_completion_at_once_are_one_end_and_both_told_true(harness, rounds):
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
def test_fifty_posts_at_once_under_one_key_are_one_job(client):  # noqa: F811
    post = partial(client.post, "/jobs", json=SPEC, headers={"Idempotency-Key": "the-same"})
    answers = run_concurrently(*[post] * 50)
    told = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    assert {answer.status_code for answer in answers} <= {201, 503} and len(told) == 1
    assert post().json()["id"] in told
    assert client.get("/jobs").json()["data"][0]["id"] in told
    oracle.check(client.app.state.context.database, None, oracle.Expected(unfinished=told))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_eight_writers_wait_for_one_that_holds_the_lock_for_five_seconds(harness):
    def hold(session):
        session.scalars(select(Job)).all()
        time.sleep(5)

    answers = run_concurrently(partial(harness.do, hold), *[harness.submit] * 8)
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert len(harness.rows(select(Job))) == 8


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_leaves_valid_json(harness, value):
    lease = harness.start()
    harness.do(recording.record, lease, [events.Facts(values={"loss": value}), events.Log(message=str(value))])
    harness.do(lifecycle.finish, lease, JobStatus.FAILED, EndReason.DIVERGED)
    facts = harness.job(lease.job_id).facts
    assert facts == {"loss": None} and json.dumps(facts, allow_nan=False)
    oracle.check(harness.database)
