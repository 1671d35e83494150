from datetime import UTC, datetime, timedelta

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


def made(service, **changes):
    response = service.client.post("/api-keys", json=KEY | changes)
    assert response.status_code == 201, response.text
    return response.json()


def headers(key):
    return {"Authorization": f"Bearer {key['token']}"}


def test_a_key_is_shown_whole_once(service):
    response = service.client.post("/api-keys", json=KEY)
    key = response.json()
    token = key.pop("token")
    assert token.startswith(key["prefix"]) and len(key["prefix"]) < 10
    assert response.headers["location"] == f"/api-keys/{key['id']}"
    assert response.headers["cache-control"] == "no-store"
    assert service.get(f"/api-keys/{key['id']}") == key
    assert service.get("/api-keys")["data"][0] == key
    assert key["scopes"] == ["submit"]


def test_keys_are_listed_newest_first_by_pages(service):
    ids = [made(service, name=f"key {number}")["id"] for number in range(3)]
    page = service.get("/api-keys?limit=2")
    rest = service.get("/api-keys", params={"limit": 2, "cursor": page["next_cursor"]})
    assert [key["id"] for key in page["data"] + rest["data"]][:3] == ids[::-1]
    assert [key["name"] for key in rest["data"]] == ["key 0", "first key"]


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
def test_a_malformed_key_is_refused(refusing, change, loc):
    problem = refusing.refused(refusing.client.post("/api-keys", json=KEY | change), 422, "invalid_request")
    assert problem["errors"][0]["loc"] == loc


def test_an_end_that_is_past_is_refused(refusing):
    body = KEY | {"expires_at": "2020-01-01T00:00:00Z"}
    refusing.refused(refusing.client.post("/api-keys", json=body), 422, "already_expired")


def test_a_key_ends_when_it_was_told_to(service):
    key = made(service, expires_in_days=2)
    left = datetime.fromisoformat(key["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=1.9) < left < timedelta(days=2.1)


def test_a_revoked_key_stays_in_the_list(service):
    key = made(service)
    assert service.client.delete(f"/api-keys/{key['id']}").status_code == 204
    assert service.client.delete(f"/api-keys/{key['id']}").status_code == 204, "once more does nothing"
    assert service.get(f"/api-keys/{key['id']}")["revoked_at"]


def test_the_last_admin_key_stays(service):
    first = service.get("/api-keys")["data"][0]["id"]
    made(service, scopes=["submit"])
    gone = made(service, scopes=["admin"], expires_in_days=1e-9)
    service.refused(service.client.delete(f"/api-keys/{first}"), 409, "last_admin_key")
    assert service.client.delete(f"/api-keys/{gone['id']}").status_code == 204
    other = made(service, scopes=["read", "admin"])
    assert service.client.delete(f"/api-keys/{first}").status_code == 204
    with TestClient(service.client.app) as client:
        service.refused(client.delete(f"/api-keys/{other['id']}", headers=headers(other)), 409, "last_admin_key")


def test_an_unknown_key_is_not_found(refusing):
    for call in (refusing.client.get, refusing.client.delete):
        refusing.refused(call("/api-keys/key_" + "0" * 26), 404, "key_not_found")
        refusing.refused(call("/api-keys/first"), 404, "not_found")


@pytest.mark.anyio
async def test_an_answer_that_lasts_hears_of_the_revocation(service, anyio_backend):
    key = made(service)
    present = 100.0
    known = KeyCache(service.database, clock=lambda: present)
    assert (await known.caller(key["token"])).owner == "alice"
    service.client.delete(f"/api-keys/{key['id']}")
    present += 0.99
    assert (await known.caller(key["token"])).owner == "alice", "asked once a second, not more"
    present += 0.02
    with pytest.raises(ApiError, match="revoked"):
        await known.caller(key["token"])


@pytest.mark.anyio
async def test_of_many_requests_at_once_one_looks_the_key_up(service, anyio_backend, monkeypatch):
    key, asked = made(service), []
    find = auth_middleware.api_keys.find
    monkeypatch.setattr(auth_middleware.api_keys, "find", lambda *arguments: asked.append(1) or find(*arguments))
    known = KeyCache(service.database)
    async with create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(known.caller, key["token"])
    assert len(asked) == 1


def test_a_key_that_ends_with_the_calendar_can_be_listed(service):
    far = {"name": "far", "owner": "me", "scopes": ["read"], "expires_at": "9999-12-31T23:59:59-05:00"}
    response = service.client.post("/api-keys", json=far)
    assert response.status_code == 201, response.text
    assert response.json()["id"] in [row["id"] for row in service.get("/api-keys")["data"]]
