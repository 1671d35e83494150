"""Authentication on every route, API keys, and cross-origin requests."""

import re
from unittest.mock import Mock
from urllib.parse import quote

import pytest
from api_routes import METHODS, closed, walk
from fastapi.testclient import TestClient
from sqlalchemy import event
from waiting import until

from api.app import create_app
from api.http import auth_middleware
from store.db import api_keys
from store.initialise import initialise

ID = "job_00000000000000000000000000"
WRONG_TOKENS = ["frs_", "frs_" + "A" * 43, "null", "undefined", "' OR 1=1 --", "*", "%", "\x00", "é", "x" * 8_000]
ORIGINS = [
    "null",
    "*",
    "http://evil.example",
    "https://127.0.0.1",
    "http://localhost:3000",
    "http://testserver",
    "http://testserver.evil.example",
    "file://",
    "chrome-extension://abc",
    "javascript:alert(1)",
    "http://a\tb",
    "https://xn--frs-0ra.example",
]


def test_every_route_except_the_public_ones_declares_one_scope(app):
    routes = list(walk(app))
    assert len(routes) > 25
    assert {route.path for route in routes if not route.scopes} == set(auth_middleware.PUBLIC_PATHS)
    assert [route for route in closed(app) if len(route.scopes) != 1] == []


def test_routes_that_change_data_need_more_than_the_read_scope(app):
    changing = [route for route in closed(app) if route.method != "GET"]
    assert [route for route in changing if route.scopes == ("read",)] == []
    assert {route.scopes for route in closed(app) if route.path.startswith("/api-keys")} == {("admin",)}


def test_every_route_and_method_is_401_without_a_key(app):
    """The routes come from the router, so undocumented routes are included."""
    tried = 0
    with TestClient(app) as client:
        for path in {route.filled(lambda _: ID) for route in closed(app)}:
            for method in METHODS:
                for spelling in (
                    path,
                    f"{path}/",
                    f"http://testserver/{path}",
                    path.upper(),
                    f"/health/live/..{path}",
                    f"{path};x",
                ):
                    assert client.request(method, spelling).status_code == 401, f"{method} {spelling}"
                    tried += 1
    assert tried > 1000


def test_a_wrong_key_is_refused_on_every_route(settings, service):
    valid = service.client.headers["authorization"].removeprefix("Bearer ")
    similar_tokens = [
        valid[:-1],
        valid + "x",
        valid.swapcase(),
        valid[::-1],
        api_keys.token_digest(valid),
        valid.replace("frs_", ""),
    ]
    for route in closed(service.client.app):
        for token in WRONG_TOKENS + similar_tokens:
            headers = {"Authorization": b"Bearer " + token.encode()}
            response = service.client.request(route.method, route.filled(lambda _: ID), headers=headers)
            assert response.status_code in (401, 429), (route, token)


def test_a_key_in_the_query_a_cookie_or_another_header_is_ignored(app, settings):
    token = settings.api_key_file.read_text().strip()
    with TestClient(app) as client:
        for query in ("key", "api_key", "access_token", "token", "authorization"):
            assert client.get(f"/jobs?{query}={quote(token)}").status_code == 401
        for header in ("X-Api-Key", "Cookie", "Proxy-Authorization", "X-Authorization"):
            assert client.get("/jobs", headers={header: f"Bearer {token}"}).status_code == 401


def test_an_empty_key_file_accepts_no_key(settings):
    settings.api_key_file.write_text("\n")
    initialise(settings)
    with TestClient(create_app(settings)) as client:
        for header in ("Bearer ", "Bearer", "Bearer  ", "Bearer \t"):
            assert client.get("/jobs", headers={"Authorization": header}).status_code == 401


def test_the_database_and_the_data_folder_contain_no_token(service, key, settings):
    tokens = [key(f"owner{number}")["token"] for number in range(5)]
    tokens.append(settings.api_key_file.read_text().strip())
    with service.database.engine.connect() as connection:
        dump = "\n".join(connection.connection.driver_connection.iterdump())
    assert api_keys.token_digest(tokens[0]) in dump
    for token in tokens:
        assert token not in dump
        for file in settings.data.rglob("*"):
            if file.is_file() and file != settings.api_key_file:
                assert token.encode() not in file.read_bytes(), file
    responses = service.client.get("/api-keys").text + service.client.get("/api-keys?limit=1").text
    assert not any(token in responses or api_keys.token_digest(token) in responses for token in tokens)


def test_no_sql_statement_contains_a_token(service, key):
    """Slow-query logs thus contain no tokens, and only digests are compared, so timing does not leak the token."""
    token, statements = key("alice")["token"], []

    @event.listens_for(service.database.engine, "before_cursor_execute")
    def record_statement(_connection, _cursor, statement, parameters, *_):
        statements.append(f"{statement} {parameters}")

    assert service.client.get("/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert any(api_keys.token_digest(token) in line for line in statements)
    assert not any(token in line for line in statements)


def test_tokens_are_long_and_unique():
    tokens = {api_keys.new_token() for _ in range(10_000)}
    assert len(tokens) == 10_000
    assert all(re.fullmatch(r"frs_[A-Za-z0-9_-]{43}", token) for token in tokens)


def test_a_revoked_key_is_refused_within_a_second_and_other_keys_still_work(service, key, client_of, monkeypatch):
    clock = Mock(monotonic=Mock(return_value=100.0))
    monkeypatch.setattr(auth_middleware, "time", clock)
    alice, carols_key = client_of("alice"), key("carol")
    carol = {"Authorization": f"Bearer {carols_key['token']}"}
    assert service.client.get("/jobs", headers=carol).status_code == 200
    assert service.client.delete(f"/api-keys/{carols_key['id']}").status_code == 204
    clock.monotonic.return_value += 1.0
    assert service.client.get("/jobs", headers=carol).status_code == 401
    assert alice.get("/jobs").status_code == 200
    assert service.client.get("/jobs").status_code == 200


def test_an_expired_key_is_refused(service, key):
    ends_soon = {"Authorization": f"Bearer {key('dave', expires_in_days=1e-6)['token']}"}
    until(lambda: service.client.get("/jobs", headers=ends_soon).status_code == 401)


@pytest.mark.parametrize("origin", ORIGINS)
def test_no_cross_origin_access_is_allowed(shared_service, origin):
    """Neither preflight nor normal responses have CORS headers or cookies."""
    for route in walk(shared_service.client.app):
        path = route.filled(lambda _: ID)
        preflight = {"Origin": origin, "Access-Control-Request-Method": route.method}
        requested = {
            "Access-Control-Request-Headers": "authorization",
            "Access-Control-Request-Private-Network": "true",
        }
        responses = [
            shared_service.client.options(path, headers=preflight | requested),
            shared_service.client.options(path, headers=preflight | requested | {"Authorization": ""}),
            shared_service.client.get(path, headers={"Origin": origin, "Cookie": "session=1"}),
        ]
        for response in responses:
            assert not [name for name in response.headers if name.startswith("access-control-")]
            assert "set-cookie" not in response.headers
