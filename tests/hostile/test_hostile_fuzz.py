"""Every error response is a problem document without traceback, path, SQL or internal message."""

import json
import random
import re
import string
from pathlib import Path
from urllib.parse import quote

import pytest
from api_routes import METHODS, Route, closed
from sqlalchemy.exc import DataError, IntegrityError, OperationalError, ProgrammingError, StatementError
from starlette.exceptions import HTTPException

from api.http.auth import Reader
from store.db.tables import Base

REQUESTS = 2_000
HERE = Path(__file__).parents[2]
LEAKS = re.compile(
    rf"{re.escape(str(HERE))}|"
    r"Traceback|File \"|line \d+, in|site-packages|/tmp/|/srv/|/usr/|/etc/|\.py\b|0x[0-9a-f]{8}|<class|object at "
    r"|sqlalchemy|sqlite|psycopg|pydantic|starlette|uvicorn|SELECT |INSERT |UPDATE |DELETE FROM|no such table"
    r"|sha256=|frs_[A-Za-z0-9_-]{20}",
    re.IGNORECASE,
)
NASTY = [
    "",
    " ",
    ".",
    "..",
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "%ff%fe",
    "%",
    "' OR '1'='1",
    "1; DROP TABLE jobs",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "%s%n%d",
    "<script>alert(1)</script>",
    "-1",
    "0",
    "1e400",
    "9" * 40,
    "NaN",
    "null",
    "true",
    "[]",
    "{}",
    "\ud7ff\u202e",
    "🙈" * 30,
    "a" * 5_000,
    "job_" + "0" * 26,
    "ckpt_" + "z" * 26,
    "shapes",
    "2030-13-45T99:99:99Z",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
]
_SECRET = "secret of /srv/api/app.py: SELECT * FROM api_keys"
FAULTS = [
    RuntimeError(_SECRET),
    KeyError(_SECRET),
    AssertionError(_SECRET),
    RecursionError(_SECRET),
    MemoryError(_SECRET),
    UnicodeDecodeError("utf-8", b"secret", 0, 1, _SECRET),
    FileNotFoundError(2, _SECRET, "/srv/secret"),
    PermissionError(13, _SECRET, "/srv/secret"),
    OSError(28, _SECRET, "/srv/secret"),
    TimeoutError(_SECRET),
    OperationalError(_SECRET, {"key": "secret"}, Exception(_SECRET)),
    IntegrityError(_SECRET, {"key": "secret"}, Exception(_SECRET)),
    DataError(_SECRET, {"key": "secret"}, Exception(_SECRET)),
    ProgrammingError(_SECRET, {"key": "secret"}, Exception(_SECRET)),
    StatementError(_SECRET, _SECRET, {"key": "secret"}, Exception(_SECRET)),
    HTTPException(418, _SECRET),
    HTTPException(500, _SECRET),
]
WORDS = [
    *("name", "owner", "scopes", "kind", "dataset", "unlabelled", "student", "teacher", "schedule", "baseline", "init"),
    *("resources", "distillation", "tags", "metadata", "architecture", "config", "detector", "job", "weights", "train"),
    *("val", "images", "annotations", "description", "classes", "expires_at", "expires_in_days", "max_active_jobs"),
    *(
        "optimizer",
        "learning_rate",
        "lr_schedule",
        "milestones",
        "seed",
        "priority",
        "max_invalid_fraction",
        "__class__",
        "$ref",
    ),
]


@pytest.mark.parametrize("seed", range(4))
def test_random_requests_to_every_route_leak_no_internals(service, shapes, seed):
    """Every route and method in turn, with an admin key, which can access everything but internals."""
    rng = random.Random(seed)
    routes = closed(service.client.app)
    for number in range(REQUESTS // 4):
        route = routes[number % len(routes)]
        request = _request(rng, route)
        response = service.client.request(**request)
        assert response.status_code < 500, request
        if response.status_code >= 400 and request["method"] != "HEAD":
            _check_no_leak(response, request)


@pytest.mark.parametrize("table", sorted(Base.metadata.tables))
def test_a_broken_database_leaks_no_internals(service, shapes, table):
    """With each table missing in turn, no route returns the table name or the query."""
    job = service.succeeded_job()
    with service.database.write() as session:
        session.connection().exec_driver_sql("PRAGMA legacy_alter_table=ON")
        session.connection().exec_driver_sql(f"ALTER TABLE {table} RENAME TO gone")
        session.commit()
    broken = 0
    for route in closed(service.client.app):
        path = route.filled({"job_id": job, "dataset": "shapes"}.get if route.parameters else str)
        body = {"name": "x", "owner": "x", "kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}}
        response = service.client.request(route.method, path, json=body if route.method != "GET" else None)
        if response.status_code >= 400:
            _check_no_leak(response, path)
        if response.status_code >= 500:
            assert table not in response.text.lower(), path
            broken += 1
    assert broken or table not in ("jobs", "datasets", "detectors"), "no route uses this table"


@pytest.mark.parametrize("fault", FAULTS, ids=range(len(FAULTS)))
def test_internal_errors_leak_no_details(service, fault):
    @service.client.app.get("/broken")
    def broken(_: Reader) -> None:
        raise fault

    response = service.client.get("/broken")
    assert response.status_code >= 400
    _check_no_leak(response, fault)
    assert "secret" not in response.text.lower()


def _request(rng: random.Random, route: Route) -> dict:
    request = {"method": route.method if rng.random() < 0.8 else rng.choice(METHODS)}
    request["url"] = route.filled(lambda _: quote(_text(rng), safe="%"))
    names = [*route.queries, rng.choice(NASTY)]
    request["params"] = [(name, _text(rng)) for name in names if rng.random() < 0.5]
    request["headers"] = {
        name: _text(rng).encode("utf-8", "replace").replace(b"\n", b"").replace(b"\r", b"")
        for name in ("Idempotency-Key", "Accept", "Range", "If-None-Match", "If-Range", "Last-Event-ID", "Cookie")
        if rng.random() < 0.3
    }
    if request["method"] in ("POST", "PUT", "PATCH", "DELETE"):
        request["content"] = _body(rng)
        request["headers"]["Content-Type"] = rng.choice(["application/json"] * 8 + ["text/xml", "", "multipart/x"])
    return request


def _body(rng: random.Random) -> bytes:
    text = json.dumps(_value(rng, 4)).encode()
    if rng.random() < 0.2:
        cut = rng.randrange(len(text) + 1)
        text = text[:cut] + rng.randbytes(rng.randrange(4)) + text[cut:]
    return text


def _value(rng: random.Random, depth: int) -> object:
    kind = rng.randrange(8 if depth else 5)
    if kind >= 6:
        return {rng.choice(WORDS): _value(rng, depth - 1) for _ in range(rng.randrange(6))}
    if kind == 5:
        return [_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return [None, rng.choice([True, False]), rng.choice([0, -1, 1.5, 10**30, 2**63, 1e308]), _text(rng), ""][kind]


def _text(rng: random.Random) -> str:
    if rng.random() < 0.7:
        return rng.choice(NASTY + WORDS)
    return "".join(rng.choices(string.printable.strip() + "éß漢\x7f", k=rng.randrange(1, 40)))


def _check_no_leak(response, request) -> None:
    assert response.headers["content-type"] == "application/problem+json", request
    problem = response.json()
    assert problem["code"] and problem["request_id"], request
    text = json.dumps({name: problem[name] for name in ("title", "detail", "hint", "errors")}, ensure_ascii=False)
    assert not LEAKS.search(text), (LEAKS.search(text), request)
    assert len(response.content) < 20_000, request
