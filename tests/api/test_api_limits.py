from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.http.auth import KeyStillValid
from api.http.rate_limits import TokenBuckets, client_network

TRAIN = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "schedule": {"epochs": 1}}
FAMILY = {
    "dataset": "shapes",
    "student": {"architecture": "gfl"},
    "teacher": {"architecture": "gfl", "init": {"weights": "teacher.pth"}},
    "baseline": {"seeds": 2},
}
"""Two distillations, two baselines and their comparison: five jobs."""


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def client_with(service):
    """A client with a new key, its owner's data set registered."""

    def make(owner="alice", **limits):
        body = {"name": owner, "owner": owner, **limits}
        client = TestClient(service.client.app)
        client.headers["Authorization"] = f"Bearer {service.client.post('/api-keys', json=body).json()['token']}"
        return client

    return make


def registered(client):
    assert client.post("/datasets", json={"name": "shapes"}).status_code == 201
    return client


def test_a_bucket_holds_a_minutes_worth_and_fills_evenly():
    clock = Clock()
    buckets = TokenBuckets(clock)
    assert [buckets.take("a", 3) for _ in range(3)] == [0.0] * 3
    assert buckets.take("a", 3) == pytest.approx(20)
    assert buckets.take("b", 3) == 0.0
    clock.now = 19.0
    assert buckets.take("a", 3) == pytest.approx(1)
    clock.now = 20.0
    assert buckets.take("a", 3) == 0.0
    clock.now = 10_000.0
    assert [buckets.take("a", 3) > 0 for _ in range(4)] == [False, False, False, True]


def test_buckets_are_only_so_many():
    buckets = TokenBuckets(Clock(), remembered=10)
    for number in range(1000):
        buckets.take(str(number), 1)
    assert buckets.take("999", 1) > 0, "it was seen a moment ago"
    assert buckets.take("0", 1) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("testclient", "testclient", True),
    ],
)
def test_an_address_is_what_one_client_can_have_to_itself(one, other, same):
    assert (client_network(one) == client_network(other)) == same


def test_a_key_that_asks_too_often_is_told_when_to_come_back(service, client_with):
    alice, bob = client_with("alice", requests_per_minute=3), client_with("bob")
    for _ in range(3):
        assert alice.get("/version").status_code == 200
    problem = service.refused(refused := alice.get("/version"), 429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert "3 requests a minute" in problem["detail"]
    assert bob.get("/version").status_code == 200
    assert alice.get("/health/ready").status_code == 200, "which needs no key"


def test_the_settings_limit_keys_that_say_nothing(settings):
    key = {"Authorization": f"Bearer {settings.api_key_file.read_text().strip()}"}
    with TestClient(create_app(settings.model_copy(update={"requests_per_minute": 2}))) as client:
        assert [client.get("/version", headers=key).status_code for _ in range(3)] == [200, 200, 429]


def test_too_often_is_said_before_the_body_is_looked_at(client_with):
    alice = client_with(requests_per_minute=1)
    alice.get("/version")
    assert alice.post("/jobs", content=b"{" * (2 << 20)).status_code == 429


def test_whoever_guesses_keys_is_slowed_down_and_nobody_else(service):
    """From one address, as all of these are."""
    wrong = [
        service.client.get("/jobs", headers={"Authorization": f"Bearer frs_{number}"}).status_code
        for number in range(service.settings.auth_failures_per_minute + 20)
    ]
    assert wrong[:60] == [401] * 60
    assert wrong[-10:] == [429] * 10
    slowed = service.client.get("/jobs", headers={"Authorization": "Bearer frs_"})
    assert int(slowed.headers["retry-after"]) >= 1
    assert service.client.get("/jobs").status_code == 200
    with TestClient(service.client.app) as client:
        assert client.get("/jobs").status_code == 401, "who shows no key guesses none"


def test_jobs_that_have_not_ended_are_only_so_many(service, client_with):
    alice = registered(client_with(max_active_jobs=2))
    ids = [alice.post("/jobs", json=TRAIN).json()["id"] for _ in range(2)]
    problem = service.refused(alice.post("/jobs", json=TRAIN), 429, "quota_exceeded")
    assert "2 jobs of alice have not ended" in problem["detail"]
    assert "cancel" in problem["hint"]
    alice.post(f"/jobs/{ids[0]}/cancel")
    assert alice.post("/jobs", json=TRAIN).status_code == 201
    assert registered(client_with("bob", max_active_jobs=1)).post("/jobs", json=TRAIN).status_code == 201


def test_a_family_counts_whole_and_is_taken_whole_or_not_at_all(service, client_with):
    alice = registered(client_with(max_active_jobs=5))
    alice.post("/jobs", json=TRAIN)
    service.refused(alice.post("/jobs", json=FAMILY), 429, "quota_exceeded")
    [only] = alice.get("/jobs").json()["data"]
    alice.post(f"/jobs/{only['id']}/cancel")
    assert alice.post("/jobs", json=FAMILY).status_code == 201
    assert len(alice.get("/jobs").json()["data"]) == 6


@pytest.mark.parametrize("action", ["resume", "retry"])
def test_a_job_that_ended_comes_back_only_where_there_is_room(service, client_with, action):
    alice = registered(client_with(max_active_jobs=1))
    first = alice.post("/jobs", json=TRAIN).json()["id"]
    alice.post(f"/jobs/{first}/cancel")
    second = alice.post("/jobs", json=TRAIN).json()["id"]
    service.refused(alice.post(f"/jobs/{first}/{action}"), 429, "quota_exceeded")
    alice.post(f"/jobs/{second}/pause")
    assert alice.post(f"/jobs/{second}/resume").status_code == 202, "it never left"
    alice.post(f"/jobs/{second}/cancel")
    assert alice.post(f"/jobs/{first}/{action}").status_code == 202


def test_a_request_made_before_is_answered_though_the_quota_is_full(client_with):
    alice, key = registered(client_with(max_active_jobs=1)), {"Idempotency-Key": "one"}
    first = alice.post("/jobs", json=TRAIN, headers=key)
    assert alice.post("/jobs", json=TRAIN, headers=key).json() == first.json()


def test_the_settings_limit_owners_whose_key_says_nothing(settings):
    with TestClient(create_app(settings.model_copy(update={"max_active_jobs": 1}))) as client:
        client.headers["Authorization"] = f"Bearer {settings.api_key_file.read_text().strip()}"
        registered(client)
        assert [client.post("/jobs", json=TRAIN).status_code for _ in range(2)] == [201, 429]


def test_twenty_at_once_get_no_more_than_there_is(client_with):
    alice = registered(client_with(max_active_jobs=5))
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: alice.post("/jobs", json=TRAIN).status_code, range(20)))
    assert sorted(answers) == [201] * 5 + [429] * 15


def test_an_endpoint_can_ask_whether_its_key_is_still_known(service):
    @service.client.app.get("/lasting")
    async def lasting(still_known: KeyStillValid) -> str:
        return (await still_known()).owner

    assert service.get("/lasting") == "admin"
