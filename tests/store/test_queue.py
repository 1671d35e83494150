"""Which job a worker claims next, by its GPUs and exclusions."""

import pytest
from database_harness import SPEC, DatabaseHarness
from sqlalchemy import insert, update

from frs.spec import Resources
from store.db.tables import Job
from store.jobs import lifecycle
from store.scheduling.queue import NO_EXCLUSIONS, RESERVATION_SECONDS, ClaimExclusions, GpuCapacity, QueueHead, peek
from store.states import JobStatus


def submit(
    harness: DatabaseHarness, devices: int | None, waited: float = 0.0, priority: int = 0, owner: str = "a"
) -> str:
    job_id = harness.submit()
    changes = {"devices": devices, "created_at": Job.created_at - waited, "priority": priority, "owner": owner}
    harness.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(changes)))
    return job_id


def claim(harness: DatabaseHarness, gpus: int, free: int, **keywords: object) -> str | None:
    lease = harness.do(lifecycle.claim, "worker", 60, capacity=GpuCapacity(gpus, free), **keywords)
    return lease and lease.job_id


def peek_queue(
    harness: DatabaseHarness, gpus: int, free: int, exclusions: ClaimExclusions = NO_EXCLUSIONS, limit: int = 10
) -> QueueHead:
    with harness.database.read() as session:
        return peek(session, GpuCapacity(gpus, free), exclusions, limit)


def test_a_job_that_does_not_fit_is_skipped(harness):
    submit(harness, 4)
    two = submit(harness, 2)
    assert claim(harness, gpus=2, free=2) == two
    assert claim(harness, gpus=2, free=2) is None


def test_a_job_without_a_number_of_gpus_takes_one_if_the_worker_has_any(harness):
    unspecified = submit(harness, None)
    assert claim(harness, gpus=2, free=0) is None
    assert claim(harness, gpus=0, free=0) == unspecified


def test_a_cpu_job_fits_every_worker(harness):
    cpu = submit(harness, 0)
    assert claim(harness, gpus=2, free=0) == cpu


def test_a_worker_of_several_hosts_runs_only_jobs_of_as_many(harness):
    single = submit(harness, None)
    double = harness.do(
        lifecycle.add, SPEC.model_copy(update={"resources": Resources(nodes=2)}), dataset_id="ds_shapes"
    )
    capacity = GpuCapacity(gpus=0, free=0, nodes=2)
    with harness.database.read() as session:
        assert peek(session, capacity, NO_EXCLUSIONS, limit=10).next == [double.id]
    assert harness.do(lifecycle.claim, "worker", 60, capacity=GpuCapacity(0, 0, nodes=4)) is None
    lease = harness.do(lifecycle.claim, "worker", 60, capacity=capacity)
    assert (lease.job_id, lease.nodes) == (double.id, 2)
    assert claim(harness, gpus=0, free=0) == single


def test_gpus_are_not_reserved_for_a_job_of_several_hosts(harness):
    double = submit(harness, 4, waited=RESERVATION_SECONDS + 1)
    harness.do(lambda session: session.execute(update(Job).where(Job.id == double).values(nodes=2)))
    small = submit(harness, 1)
    assert claim(harness, gpus=4, free=1) == small


def test_a_large_worker_leaves_smaller_jobs_to_others(harness):
    submit(harness, None)
    submit(harness, 1)
    large = submit(harness, 4)
    capacity = GpuCapacity(gpus=4, free=4, at_least=2)
    with harness.database.read() as session:
        assert peek(session, capacity, NO_EXCLUSIONS, limit=10).next == [large]
    assert harness.do(lifecycle.claim, "worker", 60, capacity=capacity).job_id == large
    assert harness.do(lifecycle.claim, "worker", 60, capacity=capacity) is None


def test_small_jobs_overtake_a_large_one_for_a_while(harness):
    submit(harness, 4)
    small = submit(harness, 1)
    assert claim(harness, gpus=4, free=1) == small


def test_free_gpus_are_reserved_for_a_large_job_that_has_waited(harness):
    large = submit(harness, 4, waited=RESERVATION_SECONDS + 60)
    small = submit(harness, 1)
    assert claim(harness, gpus=4, free=1) is None, "the GPU is reserved until all four are free"
    assert claim(harness, gpus=4, free=4) == large
    assert claim(harness, gpus=4, free=1) == small


def test_an_older_small_job_does_not_wait_for_large_ones(harness):
    small = submit(harness, 1, waited=2 * RESERVATION_SECONDS)
    submit(harness, 4, waited=RESERVATION_SECONDS + 60)
    assert claim(harness, gpus=4, free=1) == small


@pytest.mark.parametrize("waited", [0, 2 * RESERVATION_SECONDS])
def test_a_job_too_large_for_the_worker_blocks_no_other(harness, waited):
    submit(harness, 8, waited)
    small = submit(harness, 1)
    assert claim(harness, gpus=4, free=1) == small


def test_a_job_of_a_higher_priority_overtakes_one_that_has_waited(harness):
    submit(harness, 4, waited=2 * RESERVATION_SECONDS)
    urgent = submit(harness, 1, priority=1)
    assert claim(harness, gpus=4, free=1) == urgent


def test_a_cpu_job_does_not_wait_for_a_large_one(harness):
    submit(harness, 4, waited=2 * RESERVATION_SECONDS)
    cpu = submit(harness, 0)
    assert claim(harness, gpus=4, free=1) == cpu


def test_an_owner_with_many_jobs_does_not_block_another(harness):
    with harness.database.write() as session:
        spec = SPEC.model_dump(mode="json")
        row = {"kind": "train", "spec": spec, "dataset_id": "ds_shapes", "owner": "a"}
        session.execute(insert(Job), [row] * 1000)
        session.commit()
    only = submit(harness, 0, owner="b")
    assert only in [claim(harness, gpus=0, free=0) for _ in range(2)]


def test_the_owner_served_least_recently_is_next_with_its_oldest_job(harness):
    a, b = ([submit(harness, 0, owner=owner) for _ in range(3)] for owner in "ab")
    assert [claim(harness, gpus=0, free=0) for _ in range(3)] == [a[0], b[0], a[1]]
    c = [submit(harness, 0, owner="c") for _ in range(2)]
    assert [claim(harness, gpus=0, free=0) for _ in range(5)] == [c[0], b[1], a[2], c[1], b[2]]


def test_a_job_that_cannot_start_does_not_take_its_owners_turn(harness):
    blocked, ready = (submit(harness, devices, waited, owner="a") for devices, waited in [(8, 60), (0, 0)])
    others = [submit(harness, 0, owner="b") for _ in range(3)]
    assert [claim(harness, gpus=0, free=0) for _ in range(4)] == [ready, *others]
    assert harness.job(blocked).status == JobStatus.QUEUED


def test_a_priority_precedes_the_turn(harness):
    first, urgent = submit(harness, 0, owner="a"), [submit(harness, 0, owner="b", priority=1) for _ in range(2)]
    assert [claim(harness, gpus=0, free=0) for _ in range(3)] == [*urgent, first]


def test_other_owners_take_one_turn_each_before_a_reserved_job(harness):
    bobs = [submit(harness, 1, waited=3 * RESERVATION_SECONDS, owner="b") for _ in range(2)]
    large = submit(harness, 4, waited=2 * RESERVATION_SECONDS, owner="c")
    submit(harness, 1, owner="a")
    assert claim(harness, gpus=4, free=1) == bobs[0]
    assert claim(harness, gpus=4, free=1) is None, "b has had its turn, and the job of a is newer"
    assert harness.job(large).status == JobStatus.QUEUED


def test_peek_returns_the_jobs_that_would_be_claimed(harness):
    submitted = [submit(harness, 0, priority=priority) for priority in (0, 5, 0)]
    in_order = [submitted[n] for n in (1, 0, 2)]
    assert peek_queue(harness, gpus=0, free=0) == QueueHead(in_order, None)
    assert peek_queue(harness, gpus=0, free=0, limit=2).next == in_order[:2]
    assert [claim(harness, gpus=0, free=0) for _ in in_order] == in_order


def test_an_excluded_job_is_neither_peeked_nor_claimed(harness):
    first, second = submit(harness, 0), submit(harness, 0)
    exclusions = ClaimExclusions(jobs=frozenset({first}))
    assert peek_queue(harness, gpus=0, free=0, exclusions=exclusions).next == [second]
    assert claim(harness, gpus=0, free=0, exclusions=exclusions) == second
    assert claim(harness, gpus=0, free=0, exclusions=exclusions) is None
    assert harness.job(first).attempt == 0 and harness.history(first) == ["queued"]
    assert claim(harness, gpus=0, free=0) == first


def test_all_jobs_of_an_excluded_data_set_are_skipped(harness):
    for _ in range(3):
        submit(harness, 0)
    exclusions = ClaimExclusions(datasets=frozenset({"ds_shapes"}))
    assert peek_queue(harness, gpus=0, free=0, exclusions=exclusions).next == []
    assert claim(harness, gpus=0, free=0, exclusions=exclusions) is None


def test_the_first_of_the_given_jobs_that_is_still_queued_is_claimed(harness):
    first, second, third = (submit(harness, 0) for _ in range(3))
    claim(harness, gpus=0, free=0, among=[first])
    assert claim(harness, gpus=0, free=0, among=[third, second, first]) == second
    assert claim(harness, gpus=0, free=0, among=[first, second]) is None


def test_no_gpu_is_reserved_for_an_excluded_job(harness):
    large = submit(harness, 4, waited=RESERVATION_SECONDS + 60)
    small = submit(harness, 1)
    assert peek_queue(harness, gpus=4, free=1) == QueueHead([], large)
    exclusions = ClaimExclusions(jobs=frozenset({large}))
    assert peek_queue(harness, gpus=4, free=1, exclusions=exclusions) == QueueHead([small], None)
    assert claim(harness, gpus=4, free=1, exclusions=exclusions) == small


def test_gpus_are_reserved_for_the_large_job_after_an_excluded_one(harness):
    large, larger = (submit(harness, 4, waited=2 * RESERVATION_SECONDS) for _ in range(2))
    submit(harness, 1)
    exclusions = ClaimExclusions(jobs=frozenset({large}))
    assert peek_queue(harness, gpus=4, free=1, exclusions=exclusions) == QueueHead([], larger)
    assert claim(harness, gpus=4, free=1, exclusions=exclusions) is None
