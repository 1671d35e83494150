"""Uploaded weights: stored until a worker has imported them."""

import hashlib
import json

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError
from test_api_uploads import files_of, send, zip_folder

from api.detectors import uploading
from frs.events import ErrorInfo
from store.artifacts.uploads import accept_import, refuse_import
from store.db.tables import Detector, WorkerRequest
from store.states import DetectorStatus, RequestKind

LOST = OperationalError("INSERT", {}, Exception("the connection was lost"))
GFL = {"architecture": "gfl"}
BIN = {"Content-Type": "application/octet-stream"}


def send_weights(service, content=b"weights", **query):
    query = {"name": "uploaded", "description": json.dumps(GFL)} | query
    return service.client.post("/detectors/upload", params=query, content=content, headers=BIN)


def test_uploaded_weights_wait_for_a_worker(service, shapes):
    response = send_weights(
        service,
        description=json.dumps(GFL | {"backbone": {"depth": 18, "width": 16, "norm": "gn"}}),
        classes="circle, square,triangle,star",
    )
    detector = response.json()
    assert response.status_code == 201, detector
    assert response.headers["location"] == f"/detectors/{detector['id']}"
    assert (detector["status"], detector["error"]) == ("importing", None)
    assert detector["classes"] == ["circle", "square", "triangle", "star"]
    assert detector["description"]["backbone"] == {"type": "ResNet", "depth": 18, "width": 16, "norm": "gn"}
    key, sha256 = _worker_request(service, detector)
    assert service.artifacts.path(key).read_bytes() == b"weights"
    assert sha256 == detector["sha256"] == hashlib.sha256(b"weights").hexdigest()
    spec = {"kind": "evaluate", "dataset": "shapes", "student": {"detector": "uploaded"}}
    problem = service.assert_problem(service.client.post("/jobs", json=spec), 422, "detector_not_ready")
    assert problem["hint"] == "Try again when its import has ended."


def _worker_request(service, detector):
    with service.database.read() as session:
        worker_request = session.scalars(select(WorkerRequest)).one()
        assert worker_request.kind == RequestKind.IMPORT
        assert session.get_one(Detector, worker_request.request["detector_id"]).status == DetectorStatus.IMPORTING
    sent = {name: worker_request.request[name] for name in ("description", "classes")}
    assert sent == {name: detector[name] for name in sent}
    return worker_request.request["key"], worker_request.request["sha256"]


def run_in_transaction(service, function, *arguments):
    with service.database.write() as session:
        keys = function(session, *arguments)
        session.commit()
    return keys


def test_an_accepted_import_is_ready_with_its_new_weights(service, shapes):
    detector = send_weights(service).json()
    keys = run_in_transaction(
        service, accept_import, detector["id"], "uploads/b.safetensors", "b" * 64, 9, shapes["classes"]
    )
    assert keys == [f"uploads/{detector['id']}.bin"]
    shown = service.get("/detectors/uploaded")
    assert (shown["status"], shown["sha256"], shown["classes"]) == ("ready", "b" * 64, shapes["classes"])
    assert service.submit({"kind": "evaluate", "dataset": "shapes", "student": {"detector": "uploaded"}})


def test_a_refused_import_shows_its_error(service, shapes):
    detector = send_weights(service).json()
    problem = ErrorInfo(code="weights_unreadable", message="It holds code.", hint="Send tensors.")
    assert run_in_transaction(service, refuse_import, detector["id"], problem) == [f"uploads/{detector['id']}.bin"]
    shown = service.get("/detectors/uploaded")
    assert (shown["status"], shown["error"]["code"]) == ("refused", "weights_unreadable")
    spec = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl", "init": {"detector": "uploaded"}}}
    problem = service.assert_problem(service.client.post("/jobs", json=spec), 422, "detector_refused")
    assert "It holds code." in problem["detail"]
    assert run_in_transaction(service, accept_import, detector["id"], "uploads/c.safetensors", "c" * 64, 9, None) == [
        "uploads/c.safetensors"
    ]
    assert service.get("/detectors/uploaded")["status"] == "refused"


def test_weights_of_a_detector_deleted_during_the_import_are_deleted(service):
    detector = send_weights(service).json()
    assert service.client.delete("/detectors/uploaded").status_code == 204
    assert files_of(service.settings) == set()
    assert run_in_transaction(service, accept_import, detector["id"], "uploads/b.safetensors", "b" * 64, 9, None) == [
        "uploads/b.safetensors"
    ]


def test_weights_of_another_detector_are_kept(service):
    one, two = (send_weights(service, name=name).json() for name in ("one", "two"))
    assert service.client.delete("/detectors/one").status_code == 204
    assert files_of(service.settings) == {f"{two['id']}.bin"}
    assert run_in_transaction(service, refuse_import, one["id"], ErrorInfo(code="x", message="y")) == []


@pytest.mark.parametrize(
    ("query", "loc"),
    [
        ({"description": None}, "description"),
        ({"description": "gfl"}, "description"),
        ({"description": '{"architecture": "yolo"}'}, "description.architecture"),
        ({"description": '{"architecture": "gfl", "backbone": {"depth": 19}}'}, "description.backbone.depth"),
        ({"description": '{"architecture": "gfl", "backbone": {"type": "vgg"}}'}, "description.backbone"),
        ({"description": '{"config": "/etc/passwd"}'}, "description.config"),
        ({"description": '{"config": "mmdet::gfl/gfl_r50_fpn_1x_coco.py", "backbone": {}}'}, "description.backbone"),
        ({"classes": "a,,b"}, "classes"),
        ({"classes": "a,b,a"}, "classes"),
        ({"classes": "a,b\0"}, "classes"),
        ({"name": "../x"}, "name"),
        ({"nonsense": "1"}, "nonsense"),
    ],
)
def test_an_invalid_description_is_rejected_with_its_field(service, query, loc):
    query = {"name": "uploaded", "description": json.dumps(GFL)} | query
    query = {name: value for name, value in query.items() if value is not None}
    response = service.client.post("/detectors/upload", params=query, content=b"weights", headers=BIN)
    assert service.assert_problem(response, 422, "invalid_request")["errors"][0]["loc"] == loc


def test_the_student_of_a_job_is_kept_when_its_detector_is_deleted(service, shapes):
    job_id = service.succeeded_job()
    service.client.post("/detectors", json={"name": "small", "job": job_id})
    service.client.delete("/detectors/small")
    [student] = service.get(f"/jobs/{job_id}/checkpoints")["data"]
    assert service.client.get(f"/checkpoints/{student['id']}/content").content == b"0123456789"


def lose_connection(service, table):
    """Let the next insert into the table fail, as if the database had closed the connection."""

    def fail(connection, cursor, statement, *_):
        if statement.startswith(f"INSERT INTO {table} "):
            event.remove(service.database.engine, "before_cursor_execute", fail)
            raise LOST

    event.listen(service.database.engine, "before_cursor_execute", fail)


@pytest.mark.parametrize("table", ["detectors", "audit"])
def test_weights_whose_row_is_not_added_are_deleted(service, table):
    lose_connection(service, table)
    service.assert_problem(send_weights(service), 503, "database_unavailable")
    assert files_of(service.settings) == set()
    assert send_weights(service).status_code == 201


def test_an_archive_whose_row_is_not_added_is_deleted(service, shapes):
    archive = zip_folder(service.settings.datasets_root / "shapes")
    lose_connection(service, "datasets")
    service.assert_problem(send(service, archive), 503, "database_unavailable")
    assert files_of(service.settings) == set()
    assert send(service, archive).status_code == 201


def test_weights_whose_commit_is_reported_as_failed_are_kept(service, monkeypatch):
    def add_and_lose_connection(*arguments):
        add(*arguments)
        raise LOST

    add = uploading._add
    monkeypatch.setattr(uploading, "_add", add_and_lose_connection)
    service.assert_problem(send_weights(service), 503, "database_unavailable")
    assert len(files_of(service.settings)) == 1 and service.get("/detectors/uploaded")["status"] == "importing"
