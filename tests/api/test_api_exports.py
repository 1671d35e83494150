"""Exports over the API: an export is a job that waits for the student, runs on the CPU and has files as artifacts."""

import pytest
from export_reports import FILE, REPORT

from frs import events
from frs.evaluation.export_report import ExportReport, FileReport
from store.jobs import lifecycle
from store.states import EndReason, JobStatus


@pytest.fixture
def job(service, shapes):
    return service.submit(name="small", max_invalid_fraction=0.1, evaluation={"max_detections": 50})


def export(service, job, body=None, **options):
    return service.client.post(f"/jobs/{job['id']}/exports", json=body, **options)


def test_an_export_is_a_job_that_waits_for_the_student(service, job, shapes):
    response = export(service, job, {"formats": ["onnx"], "max_drop": 1})
    exporting = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/jobs/{exporting['id']}"
    spec = exporting["spec"]
    assert (exporting["kind"], exporting["name"], exporting["parent_id"]) == ("export", "small-export", None)
    assert (spec["student"], spec["dataset"], spec["resources"]["devices"]) == ({"job": job["id"]}, shapes["id"], 0)
    assert (spec["export"]["formats"], spec["export"]["max_drop"]) == (["onnx"], 1)
    assert (spec["evaluation"]["max_detections"], spec["max_invalid_fraction"]) == (50, 0.1)
    assert exporting["status_reason"]["code"] == "waiting_for_detector"


def test_without_a_body_both_formats_are_exported(service, job):
    response = service.client.post(f"/jobs/{job['id']}/exports")
    assert response.status_code == 201
    assert response.json()["spec"]["export"]["formats"] == ["onnx", "onnx-int8"]


def test_a_repeated_request_starts_one_export(service, job):
    first, second = (export(service, job, {}, headers={"Idempotency-Key": "a"}) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["Idempotency-Replayed"] == "true"
    assert len(service.get(f"/jobs/{job['id']}/exports")["data"]) == 1


def test_the_exports_of_a_job_are_listed_with_their_reports(service, job):
    service.checkpoint(lease := service.claim(job["id"]))
    service.finish(lease)
    ended, waiting = export(service, job, {"formats": ["onnx"]}).json(), export(service, job, {}).json()
    service.record(lease := service.claim(ended["id"]), events.Facts(values={"export": REPORT.model_dump(mode="json")}))
    service.finish(lease)
    newest, oldest = service.get(f"/jobs/{job['id']}/exports")["data"]
    assert (newest["job_id"], newest["status"], newest["passed"], newest["report"]) == (
        waiting["id"],
        "queued",
        None,
        None,
    )
    assert (oldest["job_id"], oldest["status"], oldest["passed"]) == (ended["id"], "succeeded", False)
    assert ExportReport.model_validate(oldest["report"]) == REPORT


def test_an_export_lists_itself(service, shapes):
    job_id = service.succeeded_job()
    service.client.post("/detectors", json={"name": "delivered", "job": job_id})
    spec = {"kind": "export", "dataset": "shapes"}
    for student in ({"job": job_id}, {"detector": "delivered"}):
        exporting = service.submit(spec | {"student": student})
        [row] = service.get(f"/jobs/{exporting['id']}/exports")["data"]
        assert row["job_id"] == exporting["id"]


def test_the_report_of_the_student_has_the_files_of_the_newest_export(service, job):
    service.checkpoint(lease := service.claim(job["id"]))
    service.evaluate(lease, "student", 0.5)
    service.finish(lease)
    assert service.get(f"/jobs/{job['id']}/report")["files"] == []
    for name in ("old.onnx", FILE.name):
        report = REPORT.model_copy(update={"files": [FILE.model_copy(update={"name": name})]})
        lease = service.claim(export(service, job, {"formats": ["onnx"]}).json()["id"])
        service.record(lease, events.Facts(values={"export": report.model_dump(mode="json")}))
        service.finish(lease)
    [file] = service.get(f"/jobs/{job['id']}/report")["files"]
    assert FileReport.model_validate(file) == FILE


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"formats": []}, "formats"),
        ({"formats": ["tensorrt"]}, "formats.0"),
        ({"max_drop": -1}, "max_drop"),
        ({"calibration_images": 0}, "calibration_images"),
        ({"quality": 1}, "quality"),
    ],
)
def test_invalid_settings_are_named(service, job, body, loc):
    response = export(service, job, body)
    assert response.status_code == 422
    assert loc in response.text


def test_only_jobs_with_a_student_can_be_exported(service, job):
    exporting = export(service, job, {}).json()
    response = export(service, exporting, {})
    assert response.status_code == 422
    assert export(service, {"id": "job_00000000000000000000000000"}).status_code == 404
    assert service.client.get("/jobs/job_00000000000000000000000000/exports").status_code == 404


def test_an_export_fails_with_its_students_job(service, job):
    exporting = export(service, job, {}).json()
    service.finish(service.claim(job["id"]), JobStatus.FAILED, end_reason=EndReason.DIVERGED)
    service.transact(lifecycle.fail_dependents)
    ended = service.get(f"/jobs/{exporting['id']}")
    assert (ended["status"], ended["end_reason"]) == (JobStatus.FAILED, EndReason.DEPENDENCY_FAILED)


def test_export_settings_belong_to_exports(service, shapes):
    response = service.client.post(
        "/jobs",
        json={"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "export": {"max_drop": 1}},
    )
    assert response.status_code == 422
    assert "`export` belongs to kind `export`" in response.text
