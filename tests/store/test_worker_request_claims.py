import pytest
from sqlalchemy import select, update

from store.db.tables import WorkerRequest
from store.errors import LeaseLost
from store.requests import worker_requests
from store.scheduling.queue import CPU_ONLY
from store.states import RequestKind, RequestStatus


@pytest.fixture
def worker_request_id(house):
    return house.do(worker_requests.add, RequestKind.PROBE, {}, owner="me").id


def claim(house):
    return house.do(worker_requests.claim, "worker", 60)


def read(house, worker_request_id):
    with house.database.read() as session:
        return session.get(WorkerRequest, worker_request_id)


def test_whoever_gave_a_worker_request_back_cannot_touch_it_again(house, worker_request_id):
    earlier = claim(house)
    house.do(worker_requests.give_back, earlier)
    later = claim(house)
    for use in (
        lambda session: worker_requests.give_back(session, earlier),
        lambda session: worker_requests.renew(session, earlier, 60),
        lambda session: worker_requests.finish(session, earlier, result={"from": "earlier"}),
    ):
        with pytest.raises(LeaseLost):
            house.do(use)
    house.do(worker_requests.finish, later, result={"from": "later"})
    done = read(house, worker_request_id)
    assert (done.status, done.result, done.attempt) == (RequestStatus.SUCCEEDED, {"from": "later"}, 1)


def test_a_worker_request_three_workers_died_over_ends_and_says_when(house, worker_request_id):
    for _ in range(worker_requests.MAX_ATTEMPTS):
        assert claim(house)
        house.do(lambda session: session.execute(update(WorkerRequest).values(lease_expires_at=1.0)))
    assert claim(house) is None
    ended = read(house, worker_request_id)
    assert (ended.status, ended.error["code"]) == (RequestStatus.FAILED, "poison")
    assert ended.finished_at >= ended.created_at


def test_what_ended_a_week_ago_is_forgotten_and_nothing_else(house):
    old, new, waiting = (house.do(worker_requests.add, RequestKind.PROBE, {}, owner="me").id for _ in range(3))
    for worker_request_id in (old, new):
        lease = house.do(worker_requests.claim, "worker", 60)
        assert lease.worker_request_id == worker_request_id
        house.do(worker_requests.finish, lease, result={})
    aged = (
        update(WorkerRequest)
        .where(WorkerRequest.id == old)
        .values(finished_at=WorkerRequest.finished_at - worker_requests.RETENTION_SECONDS - 60)
    )
    house.do(lambda session: session.execute(aged))
    house.do(worker_requests.delete_old)
    assert set(house.rows(select(WorkerRequest.id))) == {new, waiting}


def test_a_worker_request_can_be_left_to_others(house):
    first, second = (house.do(worker_requests.add, RequestKind.PROBE, {}, owner="me").id for _ in range(2))
    with house.database.read() as session:
        ahead = [worker_request.id for worker_request in worker_requests.look_ahead(session, CPU_ONLY, {first}, 10)]
    assert ahead == [second]
    assert house.do(worker_requests.claim, "worker", 60, among=ahead).worker_request_id == second
    assert house.do(worker_requests.claim, "worker", 60, among=ahead) is None
    assert read(house, first).attempt == 0
