"""How many jobs and worker requests a scheduler starts workers for."""

from pathlib import Path

import pytest
from sqlalchemy import text, update

from store.db.tables import Job
from store.jobs import lifecycle
from store.requests import worker_requests
from store.requests.claimable import claimable_count
from store.scheduling.queue import GpuCapacity
from store.states import RequestKind

CHART_QUERY = Path(__file__).parents[2] / "deploy" / "helm" / "frs" / "files" / "claimable.sql"
SIZES = [GpuCapacity(0, 0), GpuCapacity(1, 1), GpuCapacity(4, 4, at_least=2), GpuCapacity(8, 8, at_least=5)]


@pytest.fixture
def queue_of_all_sizes(harness):
    """Queue jobs for an unnamed number and for 0 to 5 GPUs, one of them delayed and one running, and two requests."""
    job_ids = [harness.submit() for _ in range(9)]
    for job_id, devices in zip(job_ids, [None, 0, 1, 2, 3, 4, 5, 1, 1], strict=True):
        harness.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(devices=devices)))  # noqa: B023
    delayed, running = job_ids[-2:]
    harness.do(lambda session: session.execute(update(Job).where(Job.id == delayed).values(not_before=1e12)))
    harness.do(lifecycle.claim, "worker", 60, running, GpuCapacity(1, 1))
    for devices in (0, 4):
        harness.do(worker_requests.add, RequestKind.PROBE, {}, owner="me", devices=devices)


def count(harness, query):
    with harness.database.read() as session:
        return session.execute(query).scalar_one()


def test_it_counts_what_a_worker_of_that_size_may_claim(harness, queue_of_all_sizes):
    assert [count(harness, claimable_count(size)) for size in SIZES] == [2 + 1, 3 + 1, 3 + 1, 1]


def test_the_query_of_the_chart_counts_the_same(harness, queue_of_all_sizes):
    if harness.database.engine.dialect.name != "postgresql":
        pytest.skip("KEDA queries PostgreSQL")
    for size in SIZES:
        values = {":gpus": size.gpus, ":at_least": size.at_least, ":default": min(1, size.gpus)}
        query = CHART_QUERY.read_text()
        for name, value in values.items():
            query = query.replace(name, str(value))
        assert count(harness, text(query)) == count(harness, claimable_count(size))
