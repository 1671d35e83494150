"""Predictions over the API: a tiny ONNX file stands for the exported student."""

import io
import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from waiting import until

from api import predictor_pool

SIZE = (40, 30)
JPEG = {"Content-Type": "image/jpeg"}


def model(classes: list[str], score: float = 0.9) -> bytes:
    """Return a file that finds one box over the whole image, with the second class, and one of a low score."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["height", "width", 3])
    kinds = {"boxes": TensorProto.FLOAT, "scores": TensorProto.FLOAT, "labels": TensorProto.INT64}
    shapes = {"boxes": [None, 4], "scores": [None], "labels": [None]}
    constants = {
        "order": np.array([1, 0, 1, 0]),
        "zeros": np.array([0, 0, 1, 1], np.float32),
        "start": np.array([0]),
        "end": np.array([2]),
        "both": np.array([2, 4]),
        "found": np.array([score, 0.1], np.float32),
        "kinds": np.array([1, 0]),
    }
    nodes = [
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Slice", ["shape", "start", "end"], ["sides"]),
        helper.make_node("Cast", ["sides"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["real", "order"], ["corners"]),
        helper.make_node("Mul", ["corners", "zeros"], ["box"]),
        helper.make_node("Expand", ["box", "both"], ["boxes"]),
        helper.make_node("Identity", ["found"], ["scores"]),
        helper.make_node("Identity", ["kinds"], ["labels"]),
    ]
    outputs = [helper.make_tensor_value_info(name, kinds[name], shapes[name]) for name in kinds]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "stub", [image], outputs, initializers)
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.helper.set_model_props(content, {"classes": json.dumps(classes)})
    return content.SerializeToString()


def picture(form: str = "JPEG", size: tuple[int, int] = SIZE, **options) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, "white").save(content, form, **options)
    return content.getvalue()


def add_export(service, student, content, **spec):
    """Add a succeeded export of a student reference with `content` as its fp32 file."""
    fields = {"kind": "export", "dataset": "shapes", "student": student, "export": {"formats": ["onnx"]}}
    lease = service.claim(service.submit(fields | spec)["id"])
    service.artifact(lease, "student.onnx", content)
    service.finish(lease)
    return lease.job_id


def predict(service, path, content=None, **options):
    headers = options.pop("headers", JPEG)
    return service.client.post(f"{path}/predict", content=content or picture(), headers=headers, params=options)


@pytest.fixture
def student(service, shapes):
    """The id of a job whose student is exported."""
    job_id = service.succeeded_job()
    add_export(service, {"job": job_id}, model(["circle", "star"]))
    return job_id


def test_the_exported_student_finds_objects(service, student):
    answer = predict(service, f"/jobs/{student}").json()
    assert (answer["width"], answer["height"]) == SIZE
    [result] = answer["results"]
    assert result["role"] == "student"
    assert result["objects"] == [{"box": [0, 0, *SIZE], "score": pytest.approx(0.9), "label": "star"}]
    low = predict(service, f"/jobs/{student}", threshold=0).json()["results"][0]["objects"]
    assert [found["label"] for found in low] == ["star", "circle"]


def test_the_newest_export_is_used(service, student):
    newest = add_export(service, {"job": student}, model(["circle", "star"], score=0.7))
    [result] = predict(service, f"/jobs/{student}").json()["results"]
    assert (result["job_id"], result["objects"][0]["score"]) == (newest, pytest.approx(0.7))
    exports = service.get(f"/jobs/{student}/exports")["data"]
    [oldest] = predict(service, f"/jobs/{exports[-1]['job_id']}").json()["results"]
    assert oldest["objects"][0]["score"] == pytest.approx(0.9)


def test_the_student_is_compared_with_teacher_and_baseline(service, shapes):
    teacher = service.succeeded_job()
    job = service.submit(
        {"dataset": "shapes", "teacher": {"job": teacher}, "student": {"architecture": "gfl"}, "baseline": True}
    )
    runs = {"student": job["id"], "teacher": teacher, "baseline": job["baseline_job_ids"][0]}
    for role in ("student", "baseline"):
        lease = service.claim(runs[role])
        service.checkpoint(lease, role.encode())
        service.finish(lease)
    for number, (role, job_id) in enumerate(runs.items()):
        if role == "baseline":
            problem = predict(service, f"/jobs/{job['id']}", compare=["teacher", "baseline"])
            assert f"frs export {job_id} --format onnx." in service.assert_problem(problem, 409, "not_exported")["hint"]
        add_export(service, {"job": job_id}, model([role, role], score=0.9 - number / 10))
    answer = predict(service, f"/jobs/{job['id']}", compare=["teacher", "baseline"]).json()
    found = {result["role"]: result["objects"][0]["label"] for result in answer["results"]}
    assert found == {"student": "student", "teacher": "teacher", "baseline": "baseline"}


def test_a_registered_detector_predicts(service, shapes):
    body = {"name": "big", "description": {"architecture": "gfl"}, "weights": "teacher.pth"}
    detector = service.client.post("/detectors", json=body).json()
    problem = predict(service, "/detectors/big", format="onnx-int8")
    assert "formats: [onnx-int8]" in service.assert_problem(problem, 409, "not_exported")["hint"]
    add_export(service, {"detector": "big"}, model(["a", "b"]))
    for name in ("big", detector["id"]):
        [result] = predict(service, f"/detectors/{name}").json()["results"]
        assert (result["role"], result["objects"][0]["label"]) == ("detector", "b")
    service.assert_problem(predict(service, "/detectors/absent"), 404, "detector_not_found")


def test_an_older_detector_of_the_same_name_does_not_predict(service, shapes):
    body = {"name": "big", "description": {"architecture": "gfl"}, "weights": "teacher.pth"}
    service.client.post("/detectors", json=body)
    add_export(service, {"detector": "big"}, model(["a", "b"]))
    assert service.client.delete("/detectors/big").status_code == 204
    service.client.post("/detectors", json=body)
    service.assert_problem(predict(service, "/detectors/big"), 409, "not_exported")


def test_a_job_without_export_names_the_next_step(service, shapes):
    job = service.submit()
    problem = service.assert_problem(predict(service, f"/jobs/{job['id']}"), 409, "not_exported")
    assert f"frs export {job['id']} --format onnx." in problem["hint"]
    problem = predict(service, f"/jobs/{job['id']}", format="onnx-no-nms")
    problem = service.assert_problem(problem, 409, "not_exported")
    assert "onnx-no-nms" in problem["detail"]
    assert f"frs export {job['id']} --format onnx-no-nms." in problem["hint"]
    service.assert_problem(predict(service, "/jobs/job_00000000000000000000000000"), 404, "job_not_found")


def test_an_export_without_the_file_names_what_to_export_and_to_name_instead(service, student):
    [exported] = service.get(f"/jobs/{student}/exports")["data"]
    problem = predict(service, f"/jobs/{exported['job_id']}", format="onnx-int8")
    hint = service.assert_problem(problem, 409, "not_exported")["hint"]
    assert (
        hint == f"Export it first: frs export {student} --format onnx-int8, and name {student} instead of the export."
    )
    service.client.post("/detectors", json={"name": "delivered", "job": student})
    exported = add_export(service, {"detector": "delivered"}, model(["a", "b"]))
    problem = predict(service, f"/jobs/{exported}", format="onnx-int8")
    hint = service.assert_problem(problem, 409, "not_exported")["hint"]
    assert "frs submit" in hint and "`export: {formats: [onnx-int8]}`" in hint


def test_a_job_without_baseline_cannot_be_compared(service, student):
    for role in ("teacher", "baseline"):
        service.assert_problem(predict(service, f"/jobs/{student}", compare=[role]), 422, "not_comparable")


@pytest.mark.parametrize(
    "content",
    [
        b"no image",
        picture()[:200],
        picture("PNG", (9_000, 9_000)),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
        picture("GIF"),
    ],
    ids=["text", "cut", "bomb", "postscript", "gif"],
)
def test_a_hostile_image_is_refused_and_the_next_one_read(service, student, content):
    service.assert_problem(predict(service, f"/jobs/{student}", content), 422, "image_unreadable")
    assert predict(service, f"/jobs/{student}").status_code == 200


def test_other_bodies_are_refused(service, student):
    path = f"/jobs/{student}"
    service.assert_problem(
        predict(service, path, headers={"Content-Type": "image/svg+xml"}), 415, "unsupported_media_type"
    )
    service.assert_problem(predict(service, path, b"x" * 20_000_001), 413, "upload_too_large")
    service.assert_problem(predict(service, path, threshold=2), 422, "invalid_request")
    assert list(service.settings.uploads_root.iterdir()) == []


def test_a_killed_process_is_started_again(service, student):
    assert predict(service, f"/jobs/{student}").status_code == 200
    [process] = _processes(os.getpid())
    os.kill(process, signal.SIGKILL)  # the next request may find it running still
    assert predict(service, f"/jobs/{student}").status_code == 200


def test_an_idle_process_ends_and_is_started_again(service, student, monkeypatch):
    monkeypatch.setattr(predictor_pool, "IDLE_SECONDS", 1)
    assert predict(service, f"/jobs/{student}").status_code == 200
    until(lambda: not _processes(os.getpid()))
    assert predict(service, f"/jobs/{student}").status_code == 200


def test_a_file_that_does_not_load_gives_an_error_and_its_reason_is_logged(service, shapes, caplog):
    job_id = service.succeeded_job()
    add_export(service, {"job": job_id}, b"no model")
    problem = service.assert_problem(predict(service, f"/jobs/{job_id}"), 504, "prediction_failed")
    assert "could not be loaded" in problem["detail"]
    assert "InvalidProtobuf" in caplog.text


def test_a_process_that_hangs_is_ended(service, student, monkeypatch):
    assert predict(service, f"/jobs/{student}").status_code == 200
    [process] = _processes(os.getpid())
    os.kill(process, signal.SIGSTOP)
    monkeypatch.setattr(predictor_pool, "PREDICT_SECONDS", 0.2)
    service.assert_problem(predict(service, f"/jobs/{student}"), 504, "prediction_failed")
    monkeypatch.undo()
    assert predict(service, f"/jobs/{student}").status_code == 200


def test_more_requests_than_places_are_refused(service, student, monkeypatch):
    assert predict(service, f"/jobs/{student}").status_code == 200
    [process] = _processes(os.getpid())
    os.kill(process, signal.SIGSTOP)
    monkeypatch.setattr(predictor_pool, "PREDICT_SECONDS", 60)
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(predict(service, f"/jobs/{student}").status_code))
        for _ in range(predictor_pool.MAX_REQUESTS_OF_OWNER + 1)
    ]
    for thread in threads:
        thread.start()
    until(lambda: answers == [503])
    os.kill(process, signal.SIGCONT)
    for thread in threads:
        thread.join()
    assert answers == [503] + [200] * predictor_pool.MAX_REQUESTS_OF_OWNER


def test_unused_files_are_unloaded(service, shapes):
    job_ids = [service.succeeded_job() for _ in range(predictor_pool.MAX_PROCESSES + 1)]
    for number, job_id in enumerate(job_ids):
        add_export(service, {"job": job_id}, model(["a", f"b{number}"]))
        [result] = predict(service, f"/jobs/{job_id}").json()["results"]
        assert result["objects"][0]["label"] == f"b{number}"
    assert len(_processes(os.getpid())) == predictor_pool.MAX_PROCESSES
    [result] = predict(service, f"/jobs/{job_ids[0]}").json()["results"]
    assert result["objects"][0]["label"] == "b0"


def _processes(parent: int) -> list[int]:
    """Return the ids of the running predictors that this process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(status[1]) == parent and status[0] != "Z" and b"frs.export.predictor" in command:
            found.append(int(folder.name))
    return found
