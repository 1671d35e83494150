"""Problem documents of invalid requests, missing resources and failures."""

import errno
import logging
import time

import pytest
from sqlalchemy.exc import OperationalError

from api.jobs import service as jobs_service


@pytest.mark.parametrize(
    ("change", "loc", "code"),
    [
        ({"dataset": None}, "dataset", "string_type"),
        ({"student": {"architecture": "gfl", "backbone": {"depth": 7}}}, "student.backbone.depth", "literal_error"),
        ({"student": {"architecture": "nope"}}, "student.architecture", "literal_error"),
        ({"student": {"architecture": "gfl", "init": 3}}, "student.init", "literal_error"),
        ({"student": {"architecture": "gfl", "init": {"weights": "../x"}}}, "student.init.weights", "value_error"),
        ({"student": {"config": "os.system"}}, "student.config", "string_pattern_mismatch"),
        ({"student": {}}, "student", "detector_unclear"),
        ({"schedule": {"image_size": [64, 1]}}, "schedule.image_size.1", "greater_than_equal"),
        ({"schedule": {"optimizer": {"learning_rate": "fast"}}}, "schedule.optimizer.learning_rate", "float_parsing"),
        ({"distillation": {"logit_weight": -1}}, "distillation.logit_weight", "greater_than_equal"),
        ({"tags": ["ok", 3]}, "tags.1", "string_type"),
        ({"metadata": {"owner": 3}}, "metadata.owner", "string_type"),
        ({"teacher": {"detector": "x"}}, "", "value_error"),
        ({"surplus": 1}, "surplus", "extra_forbidden"),
    ],
)
def test_an_invalid_spec_is_422_and_names_the_field(shared_service, change, loc, code):
    spec = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}} | change
    problem = shared_service.assert_problem(shared_service.client.post("/jobs", json=spec), 422, "invalid_request")
    assert {"loc": loc, "code": code} in [{"loc": error["loc"], "code": error["code"]} for error in problem["errors"]]
    assert loc in problem["detail"]


def test_an_invalid_job_id_is_answered_with_the_next_step_instead_of_a_pattern(shared_service):
    for id in ("", "my teacher", "job_01"):
        spec = {"dataset": "shapes", "student": {"architecture": "gfl"}, "teacher": {"job": id}}
        problem = shared_service.assert_problem(shared_service.client.post("/jobs", json=spec), 422, "invalid_request")
        [error] = problem["errors"]
        assert error["loc"] == "teacher.job" and error["message"].endswith("choose one of the list of jobs")
        assert "pattern" not in error["message"]


def test_an_empty_name_is_called_empty(shared_service):
    spec = {"kind": "train", "dataset": "", "student": {"architecture": "gfl"}}
    problem = shared_service.assert_problem(shared_service.client.post("/jobs", json=spec), 422, "invalid_request")
    assert [(error["loc"], error["message"]) for error in problem["errors"]] == [("dataset", "Must not be empty.")]


def test_a_missing_field_is_named(shared_service):
    problem = shared_service.assert_problem(shared_service.client.post("/jobs", json={}), 422, "invalid_request")
    assert [error["loc"] for error in problem["errors"]] == ["dataset", "student"]


def test_an_unknown_field_is_repeated_only_if_it_is_a_plain_name(shared_service):
    problem = shared_service.assert_problem(
        shared_service.client.post("/jobs", json={"<script>": 1, "../../x": 2}), 422, "invalid_request"
    )
    assert "script" not in str(problem)
    assert "../" not in str(problem)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "status=nope", "created_after=yesterday", "created_before=0", "kind=x"]
)
def test_an_invalid_query_is_422_and_names_the_parameter(shared_service, query):
    problem = shared_service.assert_problem(shared_service.client.get(f"/jobs?{query}"), 422, "invalid_request")
    assert problem["errors"][0]["loc"].split(".")[0] == query.split("=")[0]


@pytest.mark.parametrize(
    "path", ["/nope", "/jobs/", "/jobs/x", "/jobs/job_..", "/datasets/..%2fx", "/checkpoints/ckpt_1", "/recipes/x/y"]
)
def test_an_unknown_path_is_404(shared_service, path):
    shared_service.assert_problem(shared_service.client.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/jobs/job_00000000000000000000000000", "job_not_found"),
        ("/jobs/job_00000000000000000000000000/metrics", "job_not_found"),
        ("/jobs/job_00000000000000000000000000/report", "job_not_found"),
        ("/jobs/job_00000000000000000000000000/artifacts/x", "job_not_found"),
        ("/datasets/nope", "dataset_not_found"),
        ("/detectors/nope", "detector_not_found"),
        ("/checkpoints/ckpt_00000000000000000000000000", "checkpoint_not_found"),
        ("/recipes/nope", "recipe_not_found"),
    ],
)
def test_an_unknown_id_is_404(shared_service, path, code):
    assert shared_service.assert_problem(shared_service.client.get(path), 404, code)["hint"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/jobs", "GET, HEAD, POST"),
        ("PATCH", "/datasets/x", "DELETE, GET, HEAD"),
        ("GET", "/jobs/job_00000000000000000000000000/cancel", "POST"),
        ("DELETE", "/health/live", "GET, HEAD"),
        ("POST", "/docs", "GET, HEAD"),
    ],
)
def test_405_lists_all_methods_of_the_path(shared_service, method, path, allow):
    response = shared_service.client.request(method, path)
    shared_service.assert_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allow


def test_an_internal_error_reveals_only_its_request_id(service, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("SELECT secret FROM /srv/data")

    monkeypatch.setattr(jobs_service, "list_jobs", fail)
    with caplog.at_level(logging.ERROR, "api.http.errors"):
        response = service.client.get("/jobs")
    problem = service.assert_problem(response, 500, "internal_error")
    assert "secret" not in response.text
    assert "/srv" not in response.text
    [record] = [entry for entry in caplog.records if entry.name == "api.http.errors"]
    assert record.request_id == problem["request_id"]
    assert record.exc_info


def test_a_request_without_a_free_connection_is_503_within_seconds(service):
    service.client.get("/version")  # the key is cached for a second
    connections = [service.database.engine.connect() for _ in range(15)]
    start = time.monotonic()
    response = service.client.get("/jobs")
    seconds = time.monotonic() - start
    for connection in connections:
        connection.close()
    service.assert_problem(response, 503, "busy")
    assert response.headers["retry-after"]
    assert seconds < 3
    assert service.client.get("/jobs").status_code == 200


@pytest.mark.parametrize("source", ["file system", "SQLite"])
def test_a_full_disk_is_507(service, monkeypatch, source):
    def fail(*_):
        if source == "file system":
            raise OSError(errno.ENOSPC, "No space left on device", "/srv/data/frs.db")
        error = Exception("database or disk is full")
        error.sqlite_errorcode = 13
        raise OperationalError("INSERT", {}, error)

    monkeypatch.setattr(jobs_service, "submit", fail)
    spec = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}}
    response = service.client.post("/jobs", json=spec)
    service.assert_problem(response, 507, "storage_full")
    assert "/srv" not in response.text


def test_an_unavailable_database_is_503(service, monkeypatch):
    def fail(*_):
        raise OperationalError("SELECT", {}, Exception("connection to 10.0.0.1 refused"))

    monkeypatch.setattr(jobs_service, "list_jobs", fail)
    response = service.client.get("/jobs")
    service.assert_problem(response, 503, "database_unavailable")
    assert "10.0.0.1" not in response.text


def test_every_response_has_its_own_request_id(service):
    ids = [service.client.get("/version").headers["x-request-id"] for _ in range(3)]
    assert len(set(ids)) == 3
