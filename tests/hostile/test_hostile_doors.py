"""Host headers, requests before authentication, and large bodies and half-open connections."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest
from fastapi.testclient import TestClient

from api.app import create_app

HOSTS = [
    "",
    " ",
    "evil.example",
    "frs.example.evil.example",
    "evil-frs.example",
    "xfrs.example",
    "frs.example.",
    "frs.example:80:80",
    "frs.example:abc",
    "frs.example:-1",
    "frs.example:8000@evil.example",
    "frs.example@evil.example",
    "evil.example@frs.example",
    "frs.example/..",
    "frs.example/jobs",
    "frs.example?x",
    "frs.example#x",
    "frs.example evil.example",
    "frs.example,evil.example",
    "frs.example;evil.example",
    "frs\u00ad.example",
    "frs.\u0435xample",
    "frs%2eexample",
    "*.example",
    "*",
    ".example",
    "example",
    "localhost",
    "127.0.0.1",
    "127.0.0.1.nip.io",
    "127.1",
    "0",
    "0x7f000001",
    "2130706433",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "::1",
    "[::1",
    "[frs.example]",
    "frs.example\t",
    "\x00frs.example",
    "frs.example\x00",
    "http://frs.example",
    "//frs.example",
    "a" * 5_000,
    "a." * 2_000,
    "frs.example:" + "9" * 3_000 + "x",
    "'; --",
    "<script>",
    "${jndi:ldap://x}",
    "../../etc/passwd",
]
PATHS = ["/jobs", "/health/live", "/health/ready", "/docs", "/openapi.json"]
MIB = 1 << 20
RSS_GROWTH = 50 * MIB
HALF_OPEN = 500
JSON = {"Content-Type": "application/json"}


def test_requests_for_other_host_names_are_refused(settings):
    """Only the allowed host names are accepted, also on the public paths."""
    settings = settings.model_copy(update={"allowed_hosts": ("frs.example",)})
    key = {"Authorization": f"Bearer {settings.api_key_file.read_text().strip()}"}
    with TestClient(create_app(settings)) as client:
        assert client.get("/jobs", headers=key | {"Host": "FRS.example:8000"}).status_code == 200
        for host in HOSTS:
            for path in PATHS:
                headers = {"Host": host.encode("utf-8"), "X-Forwarded-Host": "frs.example"}
                response = client.get(path, headers=key | headers)
                assert (response.status_code, response.json()["code"]) == (400, "host_not_allowed"), (host, path)
                assert len(host) < 15 or host not in response.text


def test_a_host_header_is_never_echoed(shared_service):
    for host in HOSTS:
        response = shared_service.client.get("/datasets/nope", headers={"Host": host.encode("utf-8")})
        assert response.status_code == 404
        content = response.text + str(dict(response.headers))
        assert len(host) < 15 or host not in content


@pytest.mark.parametrize("length", ["Content-Length: 104857600", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("expects", ["", "Expect: 100-continue\r\n"])
@pytest.mark.parametrize("key", ["", "Authorization: Bearer frs_wrong\r\n"])
def test_100_mb_without_a_key_are_refused_before_the_body_is_sent(live, length, expects, key):
    """The response arrives although no byte of the body is sent."""
    head = f"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{key}{expects}{length}\r\n\r\n"
    with live.connect() as client:
        client.sendall(head.encode())
        response = client.recv(65536)
    assert response.startswith(b"HTTP/1.1 401")


def test_100_mb_sent_without_a_key_cost_no_memory(live):
    before = live.resident_bytes()
    head = "POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 104857600\r\n\r\n"
    with live.connect() as client:
        client.sendall(head.encode())
        _send_until_closed(client, 100 * MIB)
    assert _memory_growth(live, before) < RSS_GROWTH


@pytest.mark.parametrize("body", [b"{", b"{" * 100_000, b"\xff\xfe", b"NaN", b"[" * 1_000_000])
def test_broken_json_without_a_key_is_a_missing_key(live, body):
    response = httpx2.post(f"{live.url}/jobs", content=body, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (401, "key_missing")


def _bodies() -> Iterator[bytes]:
    yield from (b"NaN", b'{"max_invalid_fraction": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}', b'{"a": "\\ud800"}')
    yield from (b"[" * 500_000, b'{"a":' * 100_000, b"[" * 500_000 + b"]" * 500_000)
    yield from (b"9" * MIB, b'"' + b"\\u0041" * 170_000 + b'"', b"[" + b"0," * 500_000 + b"0]")
    yield json.dumps({f"k{number}": number for number in range(60_000)}).encode()
    yield json.dumps({"tags": ["t" * 60] * 16_000}).encode()
    yield b" " * (MIB - 2) + b"{}"
    yield from (b"x" * (MIB + 1), b'{"a": "' + b"x" * (8 * MIB) + b'"}', b"[" * (16 * MIB))


def test_large_deep_and_invalid_bodies_are_refused_without_memory_growth(live):
    paths = ("/jobs", "/datasets", "/detectors", "/api-keys", "/webhooks")
    httpx2.post(f"{live.url}/jobs", content=b"{}", headers=JSON | live.headers)
    before, tried = live.resident_bytes(), 0
    for _ in range(2):
        for body in _bodies():
            for path in paths:
                response = httpx2.post(f"{live.url}{path}", content=body, headers=JSON | live.headers, timeout=60)
                assert 400 <= response.status_code < 500, (path, body[:40])
                assert len(response.content) < 20_000, "the response repeats the request body"
                tried += 1
    assert tried > 130
    assert _memory_growth(live, before) < RSS_GROWTH


def test_the_names_of_1203_classes_fit_into_the_query_of_an_upload(live):
    query = {"name": "lvis", "description": '{"architecture": "gfl"}'}
    query["classes"] = ",".join(f"category {number}" for number in range(1203))  # as many as LVIS has
    headers = {"Content-Type": "application/octet-stream"} | live.headers
    response = httpx2.post(f"{live.url}/detectors/upload", params=query, content=b"x", headers=headers)
    assert response.status_code == 201, response.text
    assert len(response.json()["classes"]) == 1203


def test_an_endless_body_is_refused_and_not_buffered(live):
    head = "POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    before = live.resident_bytes()
    with live.connect() as client:
        client.sendall(f"{head}Authorization: Bearer {live.key}\r\n\r\n".encode())
        _send_until_closed(client, 200 * MIB, b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 413"), "an endless body is not refused"
    assert _memory_growth(live, before) < RSS_GROWTH


def test_500_half_open_connections_do_not_slow_other_requests(live):
    """A third stalls in the headers, a third in the body (with a key), and a third sends no bytes."""
    idle_p99 = _p99(live)
    partial_requests = [
        "GET /jobs HTTP/1.1\r\nHost: x\r\nX-A: ",
        f"POST /jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {live.key}\r\n"
        'Content-Type: application/json\r\nContent-Length: 900\r\n\r\n{"a',
        "",
    ]
    with ExitStack() as connections:
        for number in range(HALF_OPEN):
            connection = connections.enter_context(live.connect())
            connection.sendall(partial_requests[number % 3].encode())
        loaded_p99 = _p99(live)
        print(f"p99 alone {idle_p99 * 1e3:.1f} ms, with {HALF_OPEN} half-open connections {loaded_p99 * 1e3:.1f} ms")
        assert loaded_p99 < 2 * max(idle_p99, 0.05)


def _memory_growth(live, before: int) -> int:
    growth = live.resident_bytes() - before
    print(f"memory grew by {growth / MIB:.1f} MiB")
    return growth


def _p99(live) -> float:
    """Return the p99 latency of 300 requests, the best of 3 rounds to reduce the effect of other load."""
    return min(_round(live) for _ in range(3))


def _round(live) -> float:
    seconds = []
    with httpx2.Client(base_url=live.url, headers=live.headers) as client:
        for _ in range(300):
            started = time.perf_counter()
            assert client.get("/jobs").status_code == 200
            seconds.append(time.perf_counter() - started)
    return sorted(seconds)[296]


def _send_until_closed(client: socket.socket, limit: int, chunk: bytes = b"{" * 65536) -> int:
    sent = 0
    try:
        while sent < limit:
            client.sendall(chunk)
            sent += len(chunk)
    except OSError:  # the server closed the connection
        pass
    return sent
