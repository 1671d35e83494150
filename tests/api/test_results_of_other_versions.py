"""Results that a newer version has stored, during a rolling upgrade, are shown as far as this version can read them."""

import pytest
from export_reports import FILE, REPORT
from sqlalchemy import update

from frs import events
from store.db.sweep_tables import Sweep
from store.db.tables import Job

GFL = {"architecture": "gfl"}
DISTILL = {"dataset": "shapes", "teacher": GFL | {"init": {"weights": "teacher.pth"}}, "student": GFL}


def finish(service, job_id, mAP=None, **facts):
    lease = service.claim(job_id)
    if mAP is not None:
        service.checkpoint(lease)
        service.evaluate(lease, "student", mAP)
    service.record(lease, events.Facts(values=facts))
    service.finish(lease)


@pytest.fixture
def exported(service, shapes):
    """A function that submits a job, records an export of it with the given document, and returns the job's id."""

    def export(document):
        job_id = service.submit()["id"]
        finish(service, job_id, mAP=0.5)
        finish(service, service.client.post(f"/jobs/{job_id}/exports", json={}).json()["id"], export=document)
        return job_id

    return export


def test_an_export_with_a_file_of_an_unknown_format_is_shown_as_stored(service, exported):
    files = [FILE.model_dump(mode="json"), FILE.model_dump(mode="json") | {"format": "onnx-fp16"}]
    stored = REPORT.model_dump(mode="json") | {"files": files}
    job_id = exported(stored)
    [row] = service.get(f"/jobs/{job_id}/exports")["data"]
    assert (row["status"], row["passed"], row["report"]) == ("succeeded", None, stored)
    assert [file["format"] for file in service.get(f"/jobs/{job_id}/report")["files"]] == ["onnx-int8"]


def test_an_unknown_report_of_an_export_is_shown_as_stored(service, exported):
    job_id = exported({"invented": 1})
    [row] = service.get(f"/jobs/{job_id}/exports")["data"]
    assert (row["passed"], row["report"]) == (None, {"invented": 1})
    assert service.get(f"/jobs/{job_id}/report")["files"] == []


@pytest.mark.parametrize("student", ["last", "best"])
def test_a_report_has_the_facts_that_this_version_can_read(service, shapes, student):
    job_id = service.submit()["id"]
    finish(service, job_id, mAP=0.5, method="invented", weights={"invented": 1}, student_parameters=5)
    report = service.get(f"/jobs/{job_id}/report", params={"student": student})
    assert report["facts"] == {"student_parameters": 5}


def test_jobs_of_an_unknown_method_are_compared(service, shapes):
    ids = [service.submit(DISTILL)["id"] for _ in range(2)]
    spec = service.get(f"/jobs/{ids[0]}")["spec"] | {"method": "invented"}
    service.transact(lambda session: session.execute(update(Job).where(Job.id == ids[0]).values(spec=spec)))
    finish(service, ids[0], method="invented", student_parameters=5)
    jobs = service.get("/compare", params={"jobs": ",".join(ids)})["jobs"]
    assert [(job["method"], job["parameters"]) for job in jobs] == [("invented", 5), ("frs", None)]


def test_a_comparison_that_this_version_cannot_read_is_missing_with_the_reason(service, shapes):
    job = service.submit(DISTILL | {"baseline": True})
    finish(service, job["id"], mAP=0.6)
    finish(service, job["baseline_job_ids"][0], mAP=0.5)
    finish(service, job["comparison_job_id"], comparison={"invented": 1})
    report = service.get(f"/jobs/{job['id']}/report")
    [missing] = report["waiting_for"]
    assert (report["status"], missing["what"], missing["status"]) == ("partial", "comparison", "succeeded")
    assert "another version" in missing["reason"]


def test_a_sweep_whose_result_this_version_cannot_read_is_shown_without_it(service, shapes):
    sweep = {"spec": DISTILL, "space": {"schedule.optimizer.learning_rate": [0.1, 0.01]}, "seeds": 1}
    path = f"/sweeps/{service.client.post('/sweeps', json=sweep).json()['id']}"
    for trial in service.get(path)["trials"]:
        finish(service, trial["job_id"], mAP=0.5)
    values = {"best_setting": 0, "result": {"mAP": 0.5, "comparison": {"invented": 1}}}
    service.transact(lambda session: session.execute(update(Sweep).values(**values)))
    confirmation = service.get(path)["confirmation"]
    assert (confirmation["mAP"], confirmation["verdict"]) == (None, None)
