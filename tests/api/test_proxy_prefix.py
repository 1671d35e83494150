"""`FRS_ROOT_PATH`: the API below the path prefix of a reverse proxy."""

import pytest
from pydantic import ValidationError

from api.app import create_app
from store.settings import Settings

PREFIXES = ["/frs", "/frs/v1", "/a.b~c-d_e"]


@pytest.fixture
def behind(settings, serve):
    """Return a service behind a proxy with the prefix."""
    return lambda prefix: serve(create_app(settings.model_copy(update={"root_path": prefix})), settings)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("is_removed", [True, False])
def test_paths_work_whether_the_proxy_removes_the_prefix_or_not(behind, prefix, is_removed):
    with behind(prefix) as service:
        sent = "" if is_removed else prefix
        service.register("shapes")
        job = service.submit()
        assert service.get(f"{sent}/jobs/{job['id']}")["id"] == job["id"]
        assert service.client.get(f"{sent}/docs", headers={"Authorization": ""}).status_code == 200
        assert service.client.get(f"{sent}/jobs", headers={"Authorization": ""}).status_code == 401
        service.assert_problem(service.client.put(f"{sent}/jobs"), 405, "method_not_allowed")
        service.assert_problem(service.client.get(f"{sent}/nowhere"), 404, "not_found")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_location_headers_have_the_prefix(behind, prefix):
    with behind(prefix) as service:
        service.register("shapes")
        body = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "schedule": {"epochs": 1}}
        response = service.client.post("/jobs", json=body)
        assert response.headers["location"] == f"{prefix}/jobs/{response.json()['id']}"
        assert service.get(response.headers["location"])["id"] == response.json()["id"]


@pytest.mark.parametrize(("prefix", "servers"), [("/frs", [{"url": "/frs"}]), ("/a/b", [{"url": "/a/b"}]), ("", None)])
def test_the_openapi_document_names_the_prefix(behind, prefix, servers):
    with behind(prefix) as service:
        assert service.get("/openapi.json").get("servers") == servers


def test_a_path_that_only_begins_like_the_prefix_is_not_changed(behind):
    with behind("/job") as service:
        assert service.get("/jobs")["data"] == []


@pytest.mark.parametrize("value", ["frs", "/frs/", "/", "/a//b", "/a b", "https://host/frs", "/a?b", "/../x y"])
def test_a_prefix_that_is_no_path_is_refused(value, monkeypatch):
    monkeypatch.setenv("FRS_ROOT_PATH", value)
    with pytest.raises(ValidationError, match="root_path"):
        Settings()
