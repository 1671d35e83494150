"""Streams and keys: the key is accepted only in the header; a revoked or expired key closes its streams."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from waiting import until

from frs_client.sse import StreamEvent, parse

CLOSED_WITHIN = 2.0
SLACK = 5.0
SPEC = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}}


@pytest.fixture(scope="module")
def job_id(live: Any) -> str:
    """A queued job of the owner `ann`."""
    ann = new_key(live, "ann", "submit")
    post(live, "/datasets", {"name": "shapes"}, ann["token"])
    job_id: str = post(live, "/jobs", SPEC, ann["token"])["id"]
    return job_id


@contextmanager
def stream(live: Any, job_id: str, token: str) -> Iterator[Iterator[StreamEvent]]:
    headers = {"Authorization": f"Bearer {token}"}
    with httpx2.stream("GET", f"{live.url}/jobs/{job_id}/stream", headers=headers, timeout=60) as response:
        assert response.status_code == 200, response.read()
        yield parse(response.iter_lines())


def test_a_stream_requires_a_key_in_the_header(live: Any, job_id: str) -> None:
    path = f"{live.url}/jobs/{job_id}/stream"
    for sent in ({}, {"params": {"key": live.key, "token": live.key, "api_key": live.key}}):
        assert httpx2.get(path, **sent).status_code == 401
    assert httpx2.get(path, cookies={"Authorization": f"Bearer {live.key}"}).status_code == 401


def test_the_stream_of_another_owners_job_is_404(live: Any, job_id: str) -> None:
    bob = new_key(live, "bob", "submit")
    answer = httpx2.get(f"{live.url}/jobs/{job_id}/stream", headers={"Authorization": f"Bearer {bob['token']}"})
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


def test_a_revoked_key_closes_only_its_own_streams(live: Any, job_id: str) -> None:
    revoked, good = new_key(live, "ann", "read"), new_key(live, "ann", "read")
    with stream(live, job_id, revoked["token"]) as revoked_events, stream(live, job_id, good["token"]) as other_events:
        assert next(revoked_events).type == next(other_events).type == "status"
        started = time.monotonic()
        httpx2.delete(f"{live.url}/api-keys/{revoked['id']}", headers=live.headers).raise_for_status()
        assert [event.type for event in revoked_events] == ["closed"]
        assert time.monotonic() - started < CLOSED_WITHIN * SLACK
        post(live, f"/jobs/{job_id}/cancel", {}, live.key)
        assert [event.type for event in other_events] == ["status", "end"]


def test_an_expired_key_closes_its_streams(live: Any) -> None:
    expires_at = datetime.now(UTC) + timedelta(seconds=3)
    ann = new_key(live, "ann", "submit")
    job_id = post(live, "/jobs", SPEC, ann["token"])["id"]
    with stream(live, job_id, new_key(live, "ann", "read", expires_at=expires_at.isoformat())["token"]) as events:
        [_, closed] = events
    assert (closed.type, closed.data["code"]) == ("closed", "unknown_key")
    assert datetime.now(UTC) < expires_at + timedelta(seconds=CLOSED_WITHIN * SLACK)


def test_one_key_cannot_take_all_streams(live: Any) -> None:
    ann = new_key(live, "ann", "submit")
    job_id = post(live, "/jobs", SPEC, ann["token"])["id"]
    path, headers = f"/jobs/{job_id}/stream", {"Authorization": f"Bearer {ann['token']}"}
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {headers['Authorization']}\r\n\r\n".encode()
    sockets = [live.connect() for _ in range(100)]
    for socket in sockets:
        socket.sendall(request)
    assert all(b" 200 " in socket.recv(100)[:20] for socket in sockets)
    refused = httpx2.get(live.url + path, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
    assert httpx2.get(f"{live.url}/jobs/{job_id}", headers=headers).status_code == 200, "other requests still work"
    for socket in sockets:
        socket.close()
    until(lambda: next_status(live, path, headers) == 200)


def next_status(live: Any, path: str, headers: dict[str, str]) -> int:
    with httpx2.stream("GET", live.url + path, headers=headers) as answer:
        return answer.status_code


def new_key(live: Any, owner: str, scope: str, **limits: Any) -> Any:
    return post(live, "/api-keys", {"name": owner, "owner": owner, "scopes": [scope], **limits}, live.key)


def post(live: Any, path: str, body: dict[str, Any], token: str) -> Any:
    answer = httpx2.post(f"{live.url}{path}", json=body, headers={"Authorization": f"Bearer {token}"}, timeout=60)
    assert answer.is_success, answer.text
    return answer.json()
