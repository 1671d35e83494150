"""API keys and host names: authentication of every route."""

import re
import time
from unittest.mock import Mock

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from api.app import create_app
from api.http import auth_middleware
from store.db.tables import ApiKey
from store.settings import Settings


def operations(app):
    """Yield every method and path, with the path parameters filled in."""
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            yield method.upper(), re.sub(r"{\w+}", "job_00000000000000000000000000", path)


def test_every_route_and_method_requires_a_key(app):
    public_paths = []
    with TestClient(app) as client:
        for method, path in operations(app):
            for sent_method in (method, "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"):
                response = client.request(sent_method, path)
                if path in auth_middleware.PUBLIC_PATHS:
                    public_paths.append(path)
                else:
                    assert response.status_code == 401, f"{sent_method} {path}"
                    assert response.headers["www-authenticate"] == "Bearer"
    assert set(public_paths) == {"/health/live", "/health/ready"}


@pytest.mark.parametrize("path", sorted(auth_middleware.PUBLIC_PATHS))
def test_public_paths_respond_without_a_key(app, path):
    with TestClient(app) as client:
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/web",
        "/webs/main.js",
        "/docs/",
        "/health/live/",
        "/docs//",
        "/web/../jobs",
        "/docs/../jobs",
        "/health",
        "/redoc",
    ],
)
def test_paths_that_resemble_a_public_path_require_a_key(app, path):
    with TestClient(app) as client:
        assert client.get(path).status_code == 401


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic abc", "Bearer wrong", "Bearer \xff\xfe", "bearer frs_", "Bearer a b"]
)
def test_a_header_without_a_valid_key_is_rejected(shared_service, header):
    response = shared_service.client.get("/jobs", headers={"Authorization": header.encode("latin-1")})
    assert response.status_code == 401
    assert response.json()["code"] in ("key_missing", "unknown_key")


def test_two_authorization_headers_are_rejected(shared_service):
    key = shared_service.client.headers["authorization"]
    with TestClient(shared_service.client.app) as client:
        headers = [("Authorization", "Bearer other"), ("Authorization", key)]
        assert client.get("/jobs", headers=headers).status_code == 401


def test_a_revoked_key_is_rejected_within_a_second(service, monkeypatch):
    clock = Mock(monotonic=Mock(return_value=100.0))
    monkeypatch.setattr(auth_middleware, "time", clock)
    assert service.client.get("/jobs").status_code == 200
    with service.database.write() as session:
        session.execute(update(ApiKey).values(revoked_at=1.0))
        session.commit()
    clock.monotonic.return_value += 1.0
    assert service.client.get("/jobs").status_code == 401


def test_the_body_is_not_read_without_a_key(app):
    with TestClient(app) as client:

        def body():
            raise AssertionError("read")
            yield b""

        start = time.monotonic()
        assert client.post("/jobs", content=b"{" * (8 << 20)).status_code == 401
        assert time.monotonic() - start < 1


def test_other_host_names_are_rejected_if_hosts_are_configured(settings):
    app = create_app(settings.model_copy(update={"allowed_hosts": ("frs.example",)}))
    with TestClient(app, base_url="http://frs.example:8000") as client:
        assert client.get("/health/live").status_code == 200
        for host in ("evil.example", "", "frs.example.evil", "frs.example/jobs", "frs.example:8000:1", "x:80"):
            response = client.get("/health/live", headers={"Host": host})
            assert (response.status_code, response.json()["code"]) == (400, "host_not_allowed"), host


def test_allowed_hosts_are_a_comma_separated_environment_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("FRS_ALLOWED_HOSTS", "a.example, b.example")
    assert Settings(data=tmp_path).allowed_hosts == ("a.example", "b.example")


def test_the_host_header_does_not_change_the_path(shared_service):
    for host in ("evil/../docs", "x?y=", "[::1", "a@b"):
        assert shared_service.client.get("/version", headers={"Host": host}).status_code == 200
