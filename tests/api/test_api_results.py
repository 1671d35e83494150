"""Reports, evaluations, checkpoints and artifacts of jobs."""

import hashlib
import io
import os
from unittest.mock import Mock

import pytest

from frs.events import ErrorInfo, Facts
from store.errors import ArtifactCorrupt, ArtifactsUnavailable
from store.states import EndReason, JobStatus

DISTILL = {
    "name": "small one",
    "dataset": "shapes",
    "teacher": {"architecture": "gfl", "init": {"weights": "teacher.pth"}},
    "student": {"architecture": "gfl"},
}
CONTENT = b"0123456789"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def comparison_facts(low, high):
    image_interval = {"low": low, "high": high, "level": 0.95, "resamples": 1000, "images": 3, "by_number": {}}
    pair = {"seed": 0, "student": 0.6, "baseline": 0.5, "gain": 0.1}
    return {"gain": 0.1, "image_interval": image_interval, "seed_interval": None, "pairs": [pair]}


def run_with_evaluation(service, job_id, mAP, teacher=None):
    lease = service.claim(job_id)
    if teacher is not None:
        service.evaluate(lease, "teacher", teacher, step=0)
    service.evaluate(lease, "student", mAP)
    service.finish(lease)


def test_a_report_is_partial_until_all_three_are_evaluated_and_compared(service, shapes):
    job = service.submit(DISTILL | {"baseline": True})
    [baseline], comparison = job["baseline_job_ids"], job["comparison_job_id"]
    path = f"/jobs/{job['id']}/report"
    assert service.get(path)["status"] == "partial"
    run_with_evaluation(service, job["id"], 0.6, teacher=0.8)
    partial = service.get(path)
    assert (partial["status"], partial["verdict"], partial["gap_closed"]) == ("partial", None, None)
    assert [row["role"] for row in partial["rows"]] == ["teacher", "student"]
    waiting = [(run["job_id"], run["what"], run["status"]) for run in partial["waiting_for"]]
    assert waiting == [(baseline, "baseline", "queued"), (comparison, "comparison", "queued")]
    run_with_evaluation(service, baseline, 0.5)
    assert service.get(path)["status"] == "partial"
    service.record(service.claim(comparison), Facts(values={"comparison": comparison_facts(0.02, 0.2)}))
    report = service.get(path)
    assert (report["status"], report["verdict"], report["waiting_for"]) == ("complete", "improved", [])
    assert [advice["topic"] for advice in report["advice"]] == ["more_seeds"]
    assert [row["role"] for row in report["rows"]] == ["teacher", "baseline", "student", "gain"]
    assert report["rows"][3]["metrics"]["bbox_mAP"] == pytest.approx(0.1)
    assert report["rows"][3]["metrics"]["bbox_mAP_l"] is None
    assert report["gap_closed"] == pytest.approx(1 / 3)
    assert report["per_class"]["star"] == pytest.approx({"teacher": 0.8, "baseline": 0.5, "student": 0.6, "gain": 0.1})


def test_a_report_lists_failed_runs(service, shapes):
    job = service.submit(DISTILL | {"baseline": True})
    lease = service.claim(job["baseline_job_ids"][0])
    problem = ErrorInfo(code="diverged", message="The loss became nan.")
    service.finish(lease, JobStatus.FAILED, end_reason=EndReason.DIVERGED, error=problem)
    run_with_evaluation(service, job["id"], 0.6, teacher=0.8)
    report = service.get(f"/jobs/{job['id']}/report")
    assert report["status"] == "partial"
    [failed_run, _] = report["waiting_for"]
    assert (failed_run["what"], failed_run["status"], failed_run["reason"]) == (
        "baseline",
        "failed",
        "diverged: The loss became nan.",
    )


def test_report_rows_are_means_over_the_seeds(service, shapes):
    job = service.submit(DISTILL | {"baseline": {"seeds": 2}})
    for job_id, mAP in [(job["id"], 0.6), (job["seed_job_ids"][0], 0.7)]:
        run_with_evaluation(service, job_id, mAP, teacher=0.8)
    for job_id, mAP in zip(job["baseline_job_ids"], (0.4, 0.5), strict=True):
        run_with_evaluation(service, job_id, mAP)
    rows = {row["role"]: row["metrics"]["bbox_mAP"] for row in service.get(f"/jobs/{job['id']}/report")["rows"]}
    assert rows == pytest.approx({"teacher": 0.8, "baseline": 0.45, "student": 0.65, "gain": 0.2})


def test_a_job_has_the_artifacts_of_its_comparison(service, shapes):
    job = service.submit(DISTILL | {"baseline": True})
    run_with_evaluation(service, job["id"], 0.6, teacher=0.8)
    run_with_evaluation(service, job["baseline_job_ids"][0], 0.5)
    service.artifact(service.claim(job["comparison_job_id"]), "curves.png", b"picture")
    [artifact] = service.get(f"/jobs/{job['id']}/artifacts")["data"]
    assert artifact["name"] == "curves.png"
    assert service.client.get(f"/jobs/{job['id']}/artifacts/curves.png").content == b"picture"


def test_without_a_baseline_there_is_no_verdict(service, shapes):
    lease = service.claim(service.submit(DISTILL)["id"])
    service.evaluate(lease, "teacher", 0.8, step=0)
    service.evaluate(lease, "student", 0.6)
    report = service.get(f"/jobs/{lease.job_id}/report")
    assert (report["status"], report["verdict"]) == ("complete", "no_baseline")


def test_the_report_of_a_training_contains_only_the_student(service, shapes):
    lease = service.claim(service.submit()["id"])
    assert service.get(f"/jobs/{lease.job_id}/report")["status"] == "partial"
    service.evaluate(lease, "student", 0.3, step=5)
    service.evaluate(lease, "student", 0.4, step=10)
    report = service.get(f"/jobs/{lease.job_id}/report")
    assert (report["status"], report["verdict"]) == ("complete", "no_baseline")
    assert [(row["role"], row["metrics"]["bbox_mAP"]) for row in report["rows"]] == [("student", 0.4)]


def test_evaluations_are_listed_by_step(service, shapes):
    lease = service.claim(service.submit(DISTILL)["id"])
    service.evaluate(lease, "student", 0.4, step=10)
    service.evaluate(lease, "teacher", 0.8, step=0)
    rows = service.get(f"/jobs/{lease.job_id}/evaluations")["data"]
    assert [(row["role"], row["step"], row["metrics"]["bbox_mAP"]) for row in rows] == [
        ("teacher", 0, 0.8),
        ("student", 10, 0.4),
    ]


@pytest.fixture
def finished(service, shapes):
    lease = service.claim(service.submit(DISTILL)["id"])
    service.checkpoint(lease, b"state", "training")
    service.checkpoint(lease, CONTENT)
    service.artifact(lease, "student-config.py", b"model = dict()\n")
    service.artifact(lease, "student.safetensors", b"copy")
    service.finish(lease)
    return lease.job_id


def test_checkpoints_are_listed_and_read(service, shapes):
    lease = service.claim(service.submit()["id"])
    service.checkpoint(lease, b"state", "training")
    service.checkpoint(lease, CONTENT)
    training, student = service.get(f"/jobs/{lease.job_id}/checkpoints")["data"]
    assert (training["kind"], training["labels"]) == ("training", [])
    service.finish(lease)
    assert service.get(f"/jobs/{lease.job_id}/checkpoints")["data"] == [student]
    assert (student["kind"], student["labels"], student["bytes"]) == ("student", ["best", "last"], 10)
    assert service.get(f"/checkpoints/{student['id']}") == student


@pytest.fixture
def content(service, finished):
    return f"/checkpoints/{service.get(f'/jobs/{finished}/checkpoints')['data'][0]['id']}/content"


def test_a_checkpoint_is_downloaded_under_a_safe_name(service, content):
    response = service.client.get(content)
    assert response.content == CONTENT
    assert response.headers["etag"] == f'"{SHA256}"'
    assert response.headers["content-disposition"] == f'attachment; filename="small_one-{SHA256[:8]}.pth"'


def test_a_part_of_a_checkpoint_is_downloaded(service, content):
    response = service.client.get(content, headers={"Range": "bytes=2-4"})
    assert (response.status_code, response.content) == (206, b"234")
    assert response.headers["content-range"] == "bytes 2-4/10"
    resume_headers = {"Range": "bytes=8-", "If-Range": f'"{SHA256}"'}
    assert service.client.get(content, headers=resume_headers).content == b"89"
    assert service.client.get(content, headers=resume_headers | {"If-Range": '"other"'}).content == CONTENT


@pytest.mark.parametrize(
    ("range_header", "expected"),
    [("bytes=-3", b"789"), ("bytes=-99", CONTENT), ("bytes=4-4", b"4"), ("bytes=7-99", b"789"), ("Bytes = 1-2", b"12")],
)
def test_a_range_can_count_from_either_end(service, content, range_header, expected):
    response = service.client.get(content, headers={"Range": range_header})
    assert (response.status_code, response.content) == (206, expected)
    assert response.headers["content-length"] == str(len(expected))


def test_a_request_for_several_ranges_returns_the_whole_file(service, content):
    response = service.client.get(content, headers={"Range": "bytes=0-1,4-5"})
    assert (response.status_code, response.content) == (200, CONTENT)


@pytest.mark.parametrize("remaining", [b"", CONTENT[:9], CONTENT + b"x"])
def test_a_file_of_the_wrong_size_is_not_sent(service, content, remaining):
    [file] = service.artifacts.root.rglob("student_*")
    file.write_bytes(remaining)
    service.assert_problem(service.client.get(content), 500, "artifact_corrupt")


def test_a_file_that_shrinks_during_the_download_aborts_the_response(service, content, monkeypatch):
    class ShrinkingFile(io.BytesIO):
        def seek(self, offset, whence=os.SEEK_SET):
            return len(CONTENT) if whence == os.SEEK_END else super().seek(offset, whence)

    monkeypatch.setattr(type(service.artifacts), "open", lambda *_: ShrinkingFile(CONTENT[:9]))
    with pytest.raises(ArtifactCorrupt):
        service.client.get(content)


def test_an_unavailable_artifact_store_is_503(service, content, monkeypatch):
    unavailable = Mock(side_effect=ArtifactsUnavailable("s3://bucket answers 503"))
    monkeypatch.setattr(type(service.artifacts), "open", unavailable)
    response = service.client.get(content)
    assert "s3:" not in str(service.assert_problem(response, 503, "storage_unavailable"))
    assert response.headers["retry-after"]


def test_an_unchanged_file_is_not_sent_again(service, content):
    response = service.client.get(content, headers={"If-None-Match": f'"{SHA256}"'})
    assert (response.status_code, response.content) == (304, b"")


def test_a_file_pruned_in_the_meantime_is_404(service, content, finished):
    for file in service.artifacts.root.rglob("student_*"):
        file.unlink()
    service.assert_problem(service.client.get(content), 404, "artifact_not_found")


def test_artifacts_are_listed_and_downloaded(service, finished):
    names = [artifact["name"] for artifact in service.get(f"/jobs/{finished}/artifacts")["data"]]
    assert names == ["student-config.py", "student.safetensors"]
    response = service.client.get(f"/jobs/{finished}/artifacts/student.safetensors")
    assert response.content == b"copy"
    assert 'filename="student.safetensors"' in response.headers["content-disposition"]


def test_the_config_is_plain_text(service, finished):
    response = service.client.get(f"/jobs/{finished}/config")
    assert response.text == "model = dict()\n"
    assert response.headers["content-type"].startswith("text/plain")


def test_a_queued_job_has_no_config(service, shapes):
    job = service.submit()
    problem = service.assert_problem(service.client.get(f"/jobs/{job['id']}/config"), 404, "artifact_not_found")
    assert "artifacts" in problem["hint"]


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f..%2fapi-key", "student.safetensors%00", "x" * 5000])
def test_an_artifact_is_a_name_not_a_path(service, finished, name):
    path = f"/jobs/{finished}/artifacts/{name}"
    assert service.settings.api_key_file.read_text().strip() not in service.client.get(path).text
    assert service.client.get(path).status_code == (200 if name == ".." else 404)  # clients resolve dots


@pytest.mark.parametrize(
    ("range_header", "status"),
    [
        ("bytes=10-", 416),
        ("bytes=99-100", 416),
        ("lines=1-2", 400),
        ("x", 400),
        ("bytes=-0", 416),
        ("bytes=-", 400),
        ("bytes=3-2", 400),
        ("bytes=a-b", 400),
        ("bytes=1-2-3", 400),
        ("bytes=" + "9" * 5000 + "-", 400),
    ],
)
def test_an_invalid_range_is_rejected(service, shapes, range_header, status):
    lease = service.claim(service.submit()["id"])
    path = f"/checkpoints/{service.checkpoint(lease, CONTENT)}/content"
    response = service.client.get(path, headers={"Range": range_header})
    service.assert_problem(response, status, "invalid_range")
    assert response.headers.get("content-range") == ("bytes */10" if status == 416 else None)
    assert service.client.get(path, headers={"Range": "bytes=2-3"}).content == CONTENT[2:4]
