"""`GET /jobs/{id}/report?student=best`: the metrics of the best student, which may not be the last one."""

import hashlib

import pytest

from frs import events
from store.jobs import recording

MAP_METRICS = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l")
TRAIN = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "schedule": {"epochs": 1}}
DISTILL = {
    "dataset": "shapes",
    "teacher": {"architecture": "gfl", "init": {"weights": "teacher.pth"}},
    "student": {"architecture": "gfl"},
}


def save_student(service, lease, step, mAP, *labels):
    content = f"{step}".encode()
    sha256, scores = hashlib.sha256(content).hexdigest(), dict.fromkeys(MAP_METRICS, mAP)
    path = service.settings.work_root / sha256
    path.write_bytes(content)
    event = events.Checkpoint(
        kind="student",
        path="a.pth",
        sha256=sha256,
        bytes=len(content),
        step=step,
        epoch=1,
        labels=labels,
        metrics=scores,
    )
    key = recording.checkpoint_key(lease, event)
    service.artifacts.put(path, key, sha256)
    service.transact(recording.record_checkpoint, lease, event, key)
    classes = dict.fromkeys(("circle", "square", "triangle", "star"), mAP)
    final = "last" in labels
    service.record(
        lease,
        events.Evaluation(
            role="student", step=step, epoch=1, metrics=scores, per_class=classes, images=3, detections=9, last=final
        ),
    )


def report_of_best(service, job_id):
    report = service.get(f"/jobs/{job_id}/report", params={"student": "best"})
    return report, {row["role"]: row["metrics"]["bbox_mAP"] for row in report["rows"]}


@pytest.mark.parametrize("students", [[0.5, 0.4], [0.5, 0.2, 0.4], [0.1, 0.5, 0.4], [0.5]])
def test_the_report_has_the_metrics_of_the_best_student(service, shapes, students):
    lease = service.claim(service.submit(TRAIN)["id"])
    best = max(students)
    for step, mAP in enumerate(students, 1):
        save_student(service, lease, step, mAP, *["best"] * (mAP == best), *["last"] * (step == len(students)))
    service.finish(lease)
    report, rows = report_of_best(service, lease.job_id)
    assert (report["status"], rows, report["per_class"]["star"]["student"]) == ("complete", {"student": best}, best)
    assert service.get(f"/jobs/{lease.job_id}/report")["rows"][0]["metrics"]["bbox_mAP"] == students[-1]


def test_the_report_of_the_best_student_has_a_teacher_but_neither_baseline_nor_gain(service, shapes):
    job = service.submit(DISTILL | {"baseline": True})
    lease = service.claim(job["id"])
    service.evaluate(lease, "teacher", 0.8, step=0)
    save_student(service, lease, 1, 0.5, "best")
    save_student(service, lease, 2, 0.4, "last")
    service.finish(lease)
    for job_id in (job["id"], job["comparison_job_id"]):
        report, rows = report_of_best(service, job_id)
        assert rows == {"teacher": 0.8, "student": 0.5}
        assert (report["verdict"], report["comparison"], report["waiting_for"]) == ("no_baseline", None, [])


def test_the_report_is_partial_before_there_is_a_student(service, shapes):
    report, rows = report_of_best(service, service.submit(TRAIN)["id"])
    assert (report["status"], rows, report["waiting_for"][0]["what"]) == ("partial", {}, "student")


def test_there_are_two_students_to_choose_from(service, shapes):
    response = service.client.get(f"/jobs/{service.submit(TRAIN)['id']}/report", params={"student": "worst"})
    service.assert_problem(response, 422, "invalid_request")
