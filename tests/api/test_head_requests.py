"""`HEAD` answers as `GET` does, without the body: proxies, monitors and download managers ask so first."""

import re

import pytest

JOB = "job_00000000000000000000000000"
MISSING = {"job_id": JOB, "checkpoint_id": "ckpt_00000000000000000000000000"}
VARYING = ("x-request-id", "date", "content-length")


def head_and_get(client, path, **options):
    """Return the responses to HEAD and GET, after checking that they have the same status and headers."""
    head, get = client.head(path, **options), client.get(path, **options)
    assert (head.status_code, head.content) == (get.status_code, b""), path
    for name in set(get.headers) - set(VARYING):
        assert head.headers[name] == get.headers[name], (path, name)
    return head, get


def test_every_path_with_get_answers_head(app, shared_service):
    paths = [path for path, operations in app.openapi()["paths"].items() if "get" in operations]
    assert len(paths) > 30
    for template in paths:
        path = re.sub(r"{(\w+)}", lambda match: MISSING.get(match[1], "none"), template)
        head_and_get(shared_service.client, path)


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/docs", "/openapi.json", "/docs/swagger-ui.css"])
def test_public_paths_answer_head_with_the_length_of_the_body(shared_service, path):
    head, get = head_and_get(shared_service.client, path)
    assert head.status_code == 200 and head.headers["content-length"] == str(len(get.content))


@pytest.mark.parametrize(
    ("headers", "status", "length"),
    [
        ({}, 200, 10),
        ({"Range": "bytes=0-3"}, 206, 4),
        ({"Range": "bytes=4-"}, 206, 6),
        ({"Range": "bytes=99-"}, 416, None),
        ({"Range": "nonsense"}, 400, None),
    ],
)
def test_head_of_a_file_has_its_size_and_hash(service, shapes, headers, status, length):
    job_id = service.succeeded_job()
    [checkpoint] = service.get(f"/jobs/{job_id}/checkpoints")["data"]
    head, _ = head_and_get(service.client, f"/checkpoints/{checkpoint['id']}/content", headers=headers)
    assert head.status_code == status
    if length:
        assert head.headers["content-length"] == str(length)
        assert head.headers["etag"] == f'"{checkpoint["sha256"]}"'


def test_head_of_a_stream_ends_and_frees_its_place(service, shapes, app):
    job_id = service.submit()["id"]
    for _ in range(3):
        response = service.client.head(f"/jobs/{job_id}/stream")
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-type"].startswith("text/event-stream")
    assert app.state.context.streams.open == 0


@pytest.mark.parametrize("path", ["/jobs", "/datasets", f"/jobs/{JOB}", "/metrics", "/nowhere"])
def test_head_needs_a_key_like_get(shared_service, path):
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer frs_wrong"}):
        assert shared_service.client.head(path, headers=headers).status_code == 401


def test_a_path_without_get_refuses_head(shared_service):
    response = shared_service.client.head(f"/jobs/{JOB}/cancel")
    assert (response.status_code, response.headers["allow"], response.content) == (405, "POST", b"")


def test_head_requests_are_counted_by_route_and_method(service):
    service.client.head("/jobs?limit=1")
    assert (
        'frs_http_requests_total{method="HEAD",route="/jobs",status="200"} 1.0' in service.client.get("/metrics").text
    )
