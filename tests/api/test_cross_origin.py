"""`FRS_ALLOWED_ORIGINS`: web pages of these origins may call the API; by default no page of another origin may."""

import pytest
from pydantic import ValidationError

from api.app import create_app
from store.settings import Settings

BOARD = "https://board.example"


@pytest.fixture
def allowing(settings, serve):
    """Return a service that allows the origins."""
    return lambda *origins: serve(create_app(settings.model_copy(update={"allowed_origins": origins})), settings)


def preflight(client, origin, method="POST", headers="authorization,content-type,idempotency-key"):
    sent = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return client.options("/jobs", headers=sent | {"Authorization": ""})


@pytest.mark.parametrize("origin", [BOARD, "http://localhost:3000", "null"])
def test_by_default_no_origin_is_allowed(shared_service, origin):
    assert preflight(shared_service.client, origin).status_code == 401
    response = shared_service.client.get("/jobs", headers={"Origin": origin})
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE", "HEAD"])
def test_an_allowed_origin_passes_the_preflight_without_a_key(allowing, method):
    with allowing("http://localhost:3000", BOARD) as service:
        response = preflight(service.client, BOARD, method)
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, BOARD)
        assert "authorization" in response.headers["access-control-allow-headers"].lower()


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "https://board.example.evil.example", "http://board.example", "null", f"{BOARD}:444"],
)
def test_another_origin_is_refused(allowing, origin):
    with allowing(BOARD) as service:
        assert preflight(service.client, origin).status_code == 400
        response = service.client.get("/jobs", headers={"Origin": origin})
        assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(("key", "status"), [("", 401), ("Bearer frs_wrong", 401), (None, 200)])
def test_errors_can_be_read_by_the_page_too(allowing, key, status):
    with allowing(BOARD) as service:
        headers = {"Origin": BOARD} | ({} if key is None else {"Authorization": key})
        response = service.client.get("/jobs", headers=headers)
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (status, BOARD)
        assert "X-Request-Id" in response.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("value", ["board.example", "https://board.example/", "ftp://x", "https://a b", "https://"])
def test_a_value_that_is_no_origin_is_refused(value, monkeypatch):
    monkeypatch.setenv("FRS_ALLOWED_ORIGINS", value)
    with pytest.raises(ValidationError, match="allowed_origins"):
        Settings()


def test_several_origins_are_separated_by_commas(monkeypatch):
    monkeypatch.setenv("FRS_ALLOWED_ORIGINS", f"{BOARD}, http://localhost:3000")
    assert Settings().allowed_origins == (BOARD, "http://localhost:3000")
