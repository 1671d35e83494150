"""Create, list, revoke and cache API keys."""

from datetime import UTC, datetime, timedelta
from unittest.mock import Mock

import pytest
from anyio import create_task_group
from fastapi.testclient import TestClient

from api.http import auth_middleware
from api.http.auth_middleware import KeyCache
from api.http.errors import ApiError

KEY = {"name": "laptop", "owner": "alice"}


@pytest.fixture
def anyio_backend():
    return "asyncio"


def create_key(service, **changes):
    response = service.client.post("/api-keys", json=KEY | changes)
    assert response.status_code == 201, response.text
    return response.json()


def auth_headers(key):
    return {"Authorization": f"Bearer {key['token']}"}


def test_the_token_is_shown_only_on_creation(service):
    response = service.client.post("/api-keys", json=KEY)
    key = response.json()
    token = key.pop("token")
    assert token.startswith(key["prefix"]) and len(key["prefix"]) < 10
    assert response.headers["location"] == f"/api-keys/{key['id']}"
    assert response.headers["cache-control"] == "no-store"
    assert service.get(f"/api-keys/{key['id']}") == key
    assert service.get("/api-keys")["data"][0] == key
    assert key["scopes"] == ["submit"]


def test_a_repeated_request_creates_one_key_and_names_it(service):
    first, second = (service.client.post("/api-keys", json=KEY, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert first.json()["id"] in service.assert_problem(second, 409, "already_created")["detail"]
    assert first.json()["token"] not in second.text
    other = service.client.post("/api-keys", json=KEY | {"name": "other"}, headers={"Idempotency-Key": "k"})
    service.assert_problem(other, 422, "idempotency_key_reused")
    assert [key["name"] for key in service.get("/api-keys")["data"]] == ["laptop", "first key"]


def test_keys_are_listed_newest_first_in_pages(service):
    ids = [create_key(service, name=f"key {number}")["id"] for number in range(3)]
    first_page = service.get("/api-keys?limit=2")
    second_page = service.get("/api-keys", params={"limit": 2, "cursor": first_page["next_cursor"]})
    assert [key["id"] for key in first_page["data"] + second_page["data"]][:3] == ids[::-1]
    assert [key["name"] for key in second_page["data"]] == ["key 0", "first key"]


@pytest.mark.parametrize(
    ("change", "loc"),
    [
        ({"owner": "a b"}, "owner"),
        ({"owner": ""}, "owner"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes.0"),
        ({"max_active_jobs": 0}, "max_active_jobs"),
        ({"requests_per_minute": -1}, "requests_per_minute"),
        ({"expires_in_days": 0}, "expires_in_days"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00Z", "expires_in_days": 1}, ""),
        ({"token": "frs_mine"}, "token"),
    ],
)
def test_an_invalid_key_request_is_rejected(shared_service, change, loc):
    problem = shared_service.assert_problem(
        shared_service.client.post("/api-keys", json=KEY | change), 422, "invalid_request"
    )
    assert problem["errors"][0]["loc"] == loc


def test_an_expiry_time_in_the_past_is_rejected(shared_service):
    body = KEY | {"expires_at": "2020-01-01T00:00:00Z"}
    shared_service.assert_problem(shared_service.client.post("/api-keys", json=body), 422, "already_expired")


def test_a_key_expires_after_the_requested_time(service):
    key = create_key(service, expires_in_days=2)
    remaining = datetime.fromisoformat(key["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=1.9) < remaining < timedelta(days=2.1)


def test_a_revoked_key_remains_listed(service):
    key = create_key(service)
    assert service.client.delete(f"/api-keys/{key['id']}").status_code == 204
    assert service.client.delete(f"/api-keys/{key['id']}").status_code == 204, "revoking is idempotent"
    assert service.get(f"/api-keys/{key['id']}")["revoked_at"]


def test_the_last_admin_key_cannot_be_revoked(service):
    first = service.get("/api-keys")["data"][0]["id"]
    create_key(service, scopes=["submit"])
    expired = create_key(service, scopes=["admin"], expires_in_days=1e-9)
    service.assert_problem(service.client.delete(f"/api-keys/{first}"), 409, "last_admin_key")
    assert service.client.delete(f"/api-keys/{expired['id']}").status_code == 204
    other = create_key(service, scopes=["read", "admin"])
    assert service.client.delete(f"/api-keys/{first}").status_code == 204
    with TestClient(service.client.app) as client:
        service.assert_problem(
            client.delete(f"/api-keys/{other['id']}", headers=auth_headers(other)), 409, "last_admin_key"
        )


def test_an_unknown_key_id_is_404(shared_service):
    for call in (shared_service.client.get, shared_service.client.delete):
        shared_service.assert_problem(call("/api-keys/key_" + "0" * 26), 404, "key_not_found")
        shared_service.assert_problem(call("/api-keys/first"), 404, "not_found")


@pytest.mark.anyio
async def test_the_key_cache_notices_a_revocation_within_a_second(service, anyio_backend, monkeypatch):
    clock = Mock(monotonic=Mock(return_value=100.0))
    monkeypatch.setattr(auth_middleware, "time", clock)
    key = create_key(service)
    cache = KeyCache(service.database, service.settings)
    assert (await cache.get_caller(key["token"])).owner == "alice"
    service.client.delete(f"/api-keys/{key['id']}")
    clock.monotonic.return_value += 0.99
    assert (await cache.get_caller(key["token"])).owner == "alice", "cached for one second"
    clock.monotonic.return_value += 0.02
    with pytest.raises(ApiError, match="revoked"):
        await cache.get_caller(key["token"])


@pytest.mark.anyio
async def test_concurrent_requests_with_one_key_share_one_query(service, anyio_backend, monkeypatch):
    key, queries = create_key(service), []
    find = auth_middleware.api_keys.find
    monkeypatch.setattr(auth_middleware.api_keys, "find", lambda *arguments: queries.append(1) or find(*arguments))
    cache = KeyCache(service.database, service.settings)
    async with create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(cache.get_caller, key["token"])
    assert len(queries) == 1


def test_a_key_that_expires_at_the_end_of_the_calendar_is_listed(service):
    far = {"name": "far", "owner": "me", "scopes": ["read"], "expires_at": "9999-12-31T23:59:59-05:00"}
    response = service.client.post("/api-keys", json=far)
    assert response.status_code == 201, response.text
    assert response.json()["id"] in [row["id"] for row in service.get("/api-keys")["data"]]


def test_a_key_has_all_its_limits(service):
    limits = {"max_active_jobs": 3, "max_disk_bytes": 4000, "requests_per_minute": 5}
    key = create_key(service, **limits)
    assert {name: service.get(f"/api-keys/{key['id']}")[name] for name in limits} == limits


def rotate(service, key, headers=None, **body):
    return service.client.post(f"/api-keys/{key['id']}/rotate", json=body, headers=headers)


def test_a_rotated_key_and_its_successor_are_valid_until_the_grace_period_ends(service):
    key = create_key(service, scopes=["read"], max_disk_bytes=4000)
    response = rotate(service, key, grace_hours=2)
    new = response.json()
    assert response.status_code == 201 and response.headers["location"] == f"/api-keys/{new['id']}"
    same = ("name", "owner", "scopes", "max_disk_bytes", "expires_at")
    assert [new[name] for name in same] == [key[name] for name in same]
    for either in (key, new):
        assert service.client.get("/jobs", headers=auth_headers(either)).status_code == 200
    old = service.get(f"/api-keys/{key['id']}")
    left = datetime.fromisoformat(old["expires_at"]) - datetime.fromisoformat(new["created_at"])
    assert abs(left - timedelta(hours=2)) < timedelta(minutes=1)


def test_a_repeated_rotation_creates_one_key_also_once_the_old_one_has_expired(service):
    key, headers = create_key(service), {"Idempotency-Key": "k"}
    first, second = (rotate(service, key, headers, grace_hours=0) for _ in range(2))
    assert first.json()["id"] in service.assert_problem(second, 409, "already_created")["detail"]
    service.assert_problem(rotate(service, first.json(), headers, grace_hours=0), 422, "idempotency_key_reused")
    assert len(service.get("/api-keys")["data"]) == 3


def test_without_a_grace_period_the_old_key_is_invalid_at_once(service):
    key = create_key(service)
    assert rotate(service, key, grace_hours=0).status_code == 201
    response = service.client.get("/jobs", headers=auth_headers(key))
    service.assert_problem(response, 401, "unknown_key")


def test_a_key_that_expires_sooner_keeps_its_time_and_its_successor_has_the_same(service):
    key = create_key(service, expires_in_days=0.5)
    new = rotate(service, key, grace_hours=48).json()
    assert new["expires_at"] == key["expires_at"] == service.get(f"/api-keys/{key['id']}")["expires_at"]


def test_a_key_rotated_again_because_a_token_was_lost_gives_one_that_expires_when_the_first_did(service):
    for key in (create_key(service), create_key(service, expires_in_days=90)):
        lost = rotate(service, key).json()
        service.client.delete(f"/api-keys/{lost['id']}")
        again = rotate(service, key).json()
        instead = rotate(service, again).json()
        assert again["expires_at"] == instead["expires_at"] == key["expires_at"]


def test_a_key_rotated_again_keeps_the_sooner_end_of_its_grace_periods(service):
    key = create_key(service)
    ends = [rotate(service, key, grace_hours=hours) and service.get(f"/api-keys/{key['id']}") for hours in (9, 2, 5)]
    first, second, third = (datetime.fromisoformat(end["expires_at"]) for end in ends)
    assert first > second == third


def test_the_last_admin_key_can_be_rotated(service):
    first = service.get("/api-keys")["data"][0]
    new = rotate(service, first, grace_hours=0).json()
    assert service.client.get("/api-keys", headers=auth_headers(new)).status_code == 200


def test_a_revoked_key_is_not_rotated(service):
    key = create_key(service)
    service.client.delete(f"/api-keys/{key['id']}")
    service.assert_problem(rotate(service, key), 409, "key_not_valid")
