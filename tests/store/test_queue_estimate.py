"""The estimate of when the queue is empty."""

import pytest
from sqlalchemy import update

from store.db.database import time_of
from store.db.tables import Job
from store.scheduling import worker_registry
from store.scheduling.estimate import estimate_empty
from store.states import JobStatus

ABOUT = {"abs": 5.0}
"""Tolerance in seconds, for the time between two reads of the database's clock."""


def change(harness, job_id, **values):
    harness.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(**values)))


def succeed(harness, seconds, kind="train"):
    at = harness.do(time_of)
    ended = {"status": JobStatus.SUCCEEDED, "started_at": at - seconds, "finished_at": at}
    change(harness, harness.submit(), kind=kind, **ended)


def register_worker(harness, id="worker", concurrency=1, draining=False):
    worker = {"host": "host", "version": "1", "concurrency": concurrency, "gpus": [], "draining": draining}
    harness.do(worker_registry.register, id, **worker)


def seconds_left(harness):
    estimate = harness.do(estimate_empty)
    assert estimate.reason is None
    return estimate.empty_at - harness.do(time_of)


def test_an_empty_queue_is_empty_now(harness):
    assert seconds_left(harness) == pytest.approx(0, **ABOUT)


def test_queued_jobs_take_the_median_of_their_kind(harness):
    for seconds in (100, 1000, 90000):
        succeed(harness, seconds)
    succeed(harness, 40, kind="evaluate")
    harness.submit()
    harness.submit()
    change(harness, harness.submit(), kind="evaluate")
    register_worker(harness)
    assert seconds_left(harness) == pytest.approx(2 * 1000 + 40, **ABOUT)


def test_the_work_is_divided_among_the_slots_of_workers_that_claim_jobs(harness):
    succeed(harness, 1000)
    for _ in range(6):
        harness.submit()
    register_worker(harness, "one", concurrency=2)
    register_worker(harness, "another")
    register_worker(harness, "leaving", concurrency=9, draining=True)
    assert seconds_left(harness) == pytest.approx(2000, **ABOUT)


def test_a_running_job_takes_the_time_left_by_its_progress(harness):
    register_worker(harness, concurrency=4)
    change(harness, harness.start().job_id, progress={"eta_seconds": 700.0})
    assert seconds_left(harness) == pytest.approx(700, **ABOUT), "one job does not run in several slots"


@pytest.mark.parametrize("eta_seconds", [1e9, 3e11, 1e308])
def test_a_queue_of_more_than_ten_years_has_no_estimate(harness, eta_seconds):
    lease = harness.start()
    change(harness, lease.job_id, progress={"eta_seconds": eta_seconds})
    register_worker(harness)
    estimate = harness.do(estimate_empty)
    assert (estimate.empty_at, estimate.reason) == (None, "The jobs would take more than 10 years.")


def test_a_running_job_without_progress_takes_the_median(harness):
    register_worker(harness)
    succeed(harness, 300)
    harness.start()
    assert seconds_left(harness) == pytest.approx(300, **ABOUT)


def test_without_a_worker_nothing_is_estimated(harness):
    succeed(harness, 300)
    harness.submit()
    register_worker(harness, draining=True)
    estimate = harness.do(estimate_empty)
    assert (estimate.empty_at, estimate.reason) == (None, "No worker that claims jobs is running.")


def test_jobs_of_a_kind_without_a_succeeded_job_are_left_out(harness):
    register_worker(harness)
    succeed(harness, 300)
    harness.submit()
    change(harness, harness.submit(), kind="compare")
    change(harness, harness.submit(), kind="export")
    estimate = harness.do(estimate_empty)
    assert estimate.empty_at - harness.do(time_of) == pytest.approx(300, **ABOUT)
    assert estimate.reason == "No job of kind `compare` or `export` has succeeded recently."


def test_without_a_succeeded_job_of_any_kind_nothing_is_estimated(harness):
    register_worker(harness)
    harness.submit()
    estimate = harness.do(estimate_empty)
    assert (estimate.empty_at, estimate.reason) == (None, "No job of kind `train` has succeeded recently.")
