import pytest
from sqlalchemy import select, update

from frs.events import ErrorInfo
from store.db.tables import WorkerRequest
from store.errors import LeaseLost
from store.requests import worker_requests
from store.scheduling.queue import CPU_ONLY, GpuCapacity
from store.states import RequestKind, RequestStatus, WaitingReason


@pytest.fixture
def worker_request_id(harness):
    return harness.do(worker_requests.add, RequestKind.PROBE, {}, owner="me").id


def claim(harness):
    return harness.do(worker_requests.claim, "worker", 60)


def read(harness, worker_request_id):
    with harness.database.read() as session:
        return session.get(WorkerRequest, worker_request_id)


def test_a_returned_lease_of_a_worker_request_is_invalid(harness, worker_request_id):
    earlier = claim(harness)
    harness.do(worker_requests.give_back, earlier)
    later = claim(harness)
    for operation in (
        lambda session: worker_requests.give_back(session, earlier),
        lambda session: worker_requests.renew(session, earlier, 60),
        lambda session: worker_requests.finish(session, earlier, result={"from": "earlier"}),
    ):
        with pytest.raises(LeaseLost):
            harness.do(operation)
    harness.do(worker_requests.finish, later, result={"from": "later"})
    ended = read(harness, worker_request_id)
    assert (ended.status, ended.result, ended.attempt) == (RequestStatus.SUCCEEDED, {"from": "later"}, 1)


def test_a_request_that_is_retried_later_is_queued_with_its_reason_and_claimed_after_the_delay(
    harness, worker_request_id
):
    error = ErrorInfo(code=WaitingReason.STORAGE, message="The disk is full.", hint="")
    harness.do(worker_requests.retry_later, claim(harness), error, 1e6, attempt_counts=False)
    waiting = read(harness, worker_request_id)
    assert (waiting.status, waiting.attempt, waiting.lease_owner) == (RequestStatus.QUEUED, 0, None)
    assert (waiting.status_reason_code, waiting.status_reason_message) == (WaitingReason.STORAGE, "The disk is full.")
    assert claim(harness) is None and not harness.rows(worker_requests.claimable(CPU_ONLY))
    harness.do(lambda session: session.execute(update(WorkerRequest).values(not_before=1.0)))
    assert claim(harness).attempt == 1
    claimed = read(harness, worker_request_id)
    assert (claimed.status_reason_code, claimed.not_before) == (None, None)


def test_a_request_whose_engine_was_killed_can_be_claimed_at_once(harness, worker_request_id):
    error = ErrorInfo(code="internal_error", message="The engine was killed.", hint="")
    harness.do(worker_requests.retry_later, claim(harness), error, 0.0, attempt_counts=True)
    waiting = read(harness, worker_request_id)
    assert (waiting.status, waiting.attempt, waiting.status_reason_code) == (RequestStatus.QUEUED, 1, None)
    assert claim(harness).attempt == 2


def test_a_worker_request_fails_after_three_workers_died_and_has_an_end_time(harness, worker_request_id):
    for _ in range(worker_requests.MAX_ATTEMPTS):
        assert claim(harness)
        harness.do(lambda session: session.execute(update(WorkerRequest).values(lease_expires_at=1.0)))
    assert claim(harness) is None
    ended = read(harness, worker_request_id)
    assert (ended.status, ended.error["code"]) == (RequestStatus.FAILED, "poison")
    assert ended.finished_at >= ended.created_at


def test_only_requests_that_ended_a_week_ago_are_deleted(harness):
    old, new, waiting = (harness.do(worker_requests.add, RequestKind.PROBE, {}, owner="me").id for _ in range(3))
    for worker_request_id in (old, new):
        lease = harness.do(worker_requests.claim, "worker", 60)
        assert lease.worker_request_id == worker_request_id
        harness.do(worker_requests.finish, lease, result={})
    make_old = (
        update(WorkerRequest)
        .where(WorkerRequest.id == old)
        .values(finished_at=WorkerRequest.finished_at - worker_requests.RETENTION_SECONDS - 60)
    )
    harness.do(lambda session: session.execute(make_old))
    harness.do(worker_requests.delete_old)
    assert set(harness.rows(select(WorkerRequest.id))) == {new, waiting}


def test_excluded_worker_requests_are_skipped(harness):
    first, second = (harness.do(worker_requests.add, RequestKind.PROBE, {}, owner="me").id for _ in range(2))
    with harness.database.read() as session:
        ids = [worker_request.id for worker_request in worker_requests.peek(session, CPU_ONLY, {first}, 10)]
    assert ids == [second]
    assert harness.do(worker_requests.claim, "worker", 60, among=ids).worker_request_id == second
    assert harness.do(worker_requests.claim, "worker", 60, among=ids) is None
    assert read(harness, first).attempt == 0


def test_a_large_worker_leaves_requests_that_take_fewer_gpus_to_others(harness, worker_request_id):
    large = harness.do(worker_requests.add, RequestKind.PROBE, {}, owner="me", devices=4).id
    capacity = GpuCapacity(gpus=4, free=4, at_least=2)
    assert harness.do(worker_requests.claim, "worker", 60, capacity=capacity).worker_request_id == large
    assert harness.do(worker_requests.claim, "worker", 60, capacity=capacity) is None


def test_a_worker_of_several_hosts_claims_no_request(harness):
    harness.do(worker_requests.add, RequestKind.PROBE, {}, owner="me")
    assert harness.do(worker_requests.claim, "worker", 60.0, GpuCapacity(0, 0, nodes=2)) is None
    assert harness.do(worker_requests.claim, "worker", 60.0, GpuCapacity(0, 0)) is not None
