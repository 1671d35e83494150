"""Rate limits and job quotas."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.http.auth import KeyStillValid
from api.http.rate_limits import TokenBuckets, client_network

TRAIN = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "schedule": {"epochs": 1}}
RUN_GROUP = {
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
    """Return a function that creates a key and returns a client with it."""

    def make(owner="alice", **limits):
        body = {"name": owner, "owner": owner, **limits}
        client = TestClient(service.client.app)
        client.portal = service.client.portal  # the event loop of all requests, as in production
        client.headers["Authorization"] = f"Bearer {service.client.post('/api-keys', json=body).json()['token']}"
        return client

    return make


def with_dataset(client):
    """Return the client after registering a data set for its owner."""
    assert client.post("/datasets", json={"name": "shapes"}).status_code == 201
    return client


def test_a_bucket_holds_the_tokens_of_one_minute_and_refills_evenly():
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


def test_the_number_of_buckets_is_limited():
    buckets = TokenBuckets(Clock(), max_clients=10)
    for number in range(1000):
        buckets.take(str(number), 1)
    assert buckets.take("999", 1) > 0, "the most recent client is kept"
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
def test_ipv6_addresses_of_one_64_prefix_count_as_one_client(one, other, same):
    assert (client_network(one) == client_network(other)) == same


def test_a_key_over_its_rate_limit_gets_429_with_retry_after(service, client_with):
    alice, bob = client_with("alice", requests_per_minute=3), client_with("bob")
    for _ in range(3):
        assert alice.get("/version").status_code == 200
    problem = service.assert_problem(response := alice.get("/version"), 429, "rate_limited")
    assert 1 <= int(response.headers["retry-after"]) <= 20
    assert "3 requests a minute" in problem["detail"]
    assert bob.get("/version").status_code == 200
    assert alice.get("/health/ready").status_code == 200, "the path is public"


def test_the_setting_limits_keys_without_a_rate_limit(settings):
    key = {"Authorization": f"Bearer {settings.api_key_file.read_text().strip()}"}
    with TestClient(create_app(settings.model_copy(update={"requests_per_minute": 2}))) as client:
        assert [client.get("/version", headers=key).status_code for _ in range(3)] == [200, 200, 429]


def test_the_rate_limit_is_checked_before_the_body(client_with):
    alice = client_with(requests_per_minute=1)
    alice.get("/version")
    assert alice.post("/jobs", content=b"{" * (2 << 20)).status_code == 429


def test_guessing_keys_is_rate_limited_without_affecting_valid_keys(service):
    """All requests come from one address."""
    responses = [
        service.client.get("/jobs", headers={"Authorization": f"Bearer frs_{number}"})
        for number in range(service.settings.auth_failures_per_minute + 20)
    ]
    assert [response.status_code for response in responses[:60]] == [401] * 60
    limited = [response for response in responses[60:] if response.status_code == 429]
    assert len(limited) >= 10, "all but those for which the bucket has refilled"
    assert all(int(response.headers["retry-after"]) >= 1 for response in limited)
    assert service.client.get("/jobs").status_code == 200
    with TestClient(service.client.app) as client:
        assert client.get("/jobs").status_code == 401, "a request without a key is not a guess"


def test_the_number_of_active_jobs_is_limited(service, client_with):
    alice = with_dataset(client_with(max_active_jobs=2))
    ids = [alice.post("/jobs", json=TRAIN).json()["id"] for _ in range(2)]
    problem = service.assert_problem(alice.post("/jobs", json=TRAIN), 429, "quota_exceeded")
    assert "alice has 2 active jobs; 1 more exceed the limit of 2." in problem["detail"]
    assert "cancel" in problem["hint"]
    alice.post(f"/jobs/{ids[0]}/cancel")
    assert alice.post("/jobs", json=TRAIN).status_code == 201
    assert with_dataset(client_with("bob", max_active_jobs=1)).post("/jobs", json=TRAIN).status_code == 201


def test_a_run_group_is_accepted_or_rejected_as_a_whole(service, client_with):
    alice = with_dataset(client_with(max_active_jobs=5))
    alice.post("/jobs", json=TRAIN)
    service.assert_problem(alice.post("/jobs", json=RUN_GROUP), 429, "quota_exceeded")
    [job] = alice.get("/jobs").json()["data"]
    alice.post(f"/jobs/{job['id']}/cancel")
    assert alice.post("/jobs", json=RUN_GROUP).status_code == 201
    assert len(alice.get("/jobs").json()["data"]) == 6


@pytest.mark.parametrize("is_admin", [False, True])
@pytest.mark.parametrize("action", ["resume", "retry"])
def test_an_ended_job_restarts_only_within_the_quota_of_its_owner(service, client_with, action, is_admin):
    alice = with_dataset(client_with(max_active_jobs=1))
    caller = service.client if is_admin else alice
    first = alice.post("/jobs", json=TRAIN).json()["id"]
    alice.post(f"/jobs/{first}/cancel")
    second = alice.post("/jobs", json=TRAIN).json()["id"]
    service.assert_problem(caller.post(f"/jobs/{first}/{action}"), 429, "quota_exceeded")
    alice.post(f"/jobs/{second}/pause")
    assert alice.post(f"/jobs/{second}/resume").status_code == 202, "a paused job counts as active"
    alice.post(f"/jobs/{second}/cancel")
    assert caller.post(f"/jobs/{first}/{action}").status_code == 202


def test_a_repeated_idempotent_request_succeeds_at_the_quota(client_with):
    alice, key = with_dataset(client_with(max_active_jobs=1)), {"Idempotency-Key": "one"}
    first = alice.post("/jobs", json=TRAIN, headers=key)
    assert alice.post("/jobs", json=TRAIN, headers=key).json() == first.json()


def test_the_setting_limits_owners_whose_key_has_no_quota(settings):
    with TestClient(create_app(settings.model_copy(update={"max_active_jobs": 1}))) as client:
        client.headers["Authorization"] = f"Bearer {settings.api_key_file.read_text().strip()}"
        with_dataset(client)
        assert [client.post("/jobs", json=TRAIN).status_code for _ in range(2)] == [201, 429]


def test_concurrent_submissions_do_not_exceed_the_quota(client_with):
    alice = with_dataset(client_with(max_active_jobs=5))
    with ThreadPoolExecutor(20) as threads:
        statuses = list(threads.map(lambda _: alice.post("/jobs", json=TRAIN).status_code, range(20)))
    assert sorted(statuses) == [201] * 5 + [429] * 15


def test_an_endpoint_can_check_its_key_again(service):
    @service.client.app.get("/lasting")
    async def lasting(recheck_key: KeyStillValid) -> str:
        return (await recheck_key()).owner

    assert service.get("/lasting") == "admin"
