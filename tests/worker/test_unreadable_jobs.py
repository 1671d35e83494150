"""A job whose spec or requirements a worker cannot read does not stop the other jobs."""

import errno
import os

import pytest
from sqlalchemy import select, update
from waiting import until
from worker_harness import dispatching

from frs.spec import JobSpec
from store.db.tables import Detector, Job, Worker, WorkerRequest
from store.requests import worker_requests
from store.states import RequestKind
from worker.dispatch import file_checks, job_selector

GFL = {"architecture": "gfl"}


def newer_spec(spec):
    """Return the spec with a field of a newer version."""
    return spec | {"schedule": {**spec.get("schedule", {}), "novelty": 1}}


def submit_newer_job(harness):
    job_id = harness.submit()
    spec = newer_spec(harness.job(job_id).spec)
    harness.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(spec=spec)))
    return job_id


def missing_keys(harness):
    return [entry["key"] for missing in harness.rows(select(Worker.missing)) for entry in missing if entry["owner"]]


def test_a_job_of_a_newer_version_is_skipped(harness):
    newer_id = submit_newer_job(harness)
    with dispatching(harness):
        harness.until_status(harness.submit(steps=3), "succeeded")
        until(lambda: harness.waiting_reason(newer_id).code == "spec_unknown_to_worker")
        reason = harness.waiting_reason(newer_id)
        assert "runs version" in reason.message and "cannot read a job's spec: schedule.novelty." in reason.message
        assert "list of workers" in reason.hint
        seen_at = harness.rows(select(Worker.seen_at))
        until(lambda: harness.rows(select(Worker.seen_at)) > seen_at)
    assert (harness.job(newer_id).status, harness.job(newer_id).attempt) == ("queued", 0)


def test_a_probe_of_a_newer_version_is_skipped(harness):
    spec = JobSpec.model_validate({"kind": "train", "dataset": "shapes", "student": GFL}).model_dump(mode="json")
    probes = [{"spec": document, "dataset_id": "ds_shapes"} for document in (newer_spec(spec), {"kind": "other"}, spec)]
    ids = [harness.do(worker_requests.add, RequestKind.PROBE, request, owner="admin").id for request in probes]

    def statuses():
        return [harness.rows(select(WorkerRequest.status).where(WorkerRequest.id == id))[0] for id in ids]

    with dispatching(harness):
        until(lambda: statuses() == ["queued", "queued", "succeeded"])
        until(lambda: missing_keys(harness) == [f"spec/{id}" for id in ids[:2]])


def test_missing_files_are_reported_before_unreadable_specs(harness, tmp_path, monkeypatch):
    monkeypatch.setattr("worker.dispatch.file_availability.MAX_REPORTED", 2)
    for _ in range(3):
        submit_newer_job(harness)
    harness.submit()
    with dispatching(harness, datasets_root=tmp_path):
        until(lambda: [key.partition("/")[0] for key in missing_keys(harness)] == ["ds_shapes", "spec"])


def test_an_error_in_the_requirements_of_one_job_does_not_stop_the_others(harness, monkeypatch):
    broken, requirements_of = harness.submit(), job_selector.requirements_of

    def failing(session, job):
        if job.id == broken:
            raise KeyError("an unexpected error")
        return requirements_of(session, job)

    monkeypatch.setattr(job_selector, "requirements_of", failing)
    with dispatching(harness):
        harness.until_status(harness.submit(steps=3), "succeeded")
        until(lambda: "KeyError" in harness.waiting_reason(broken).message)


@pytest.mark.parametrize(
    ("error", "text"),
    [(OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"), (MemoryError(), "MemoryError")],
)
def test_an_unreadable_file_is_reported_with_the_error(harness, monkeypatch, error, text):
    def failing(path):
        raise error

    monkeypatch.setattr(file_checks, "digest", failing)
    (harness.settings.models_root / "w.pth").write_bytes(b"weights")
    row = {"id": "det_mine", "name": "mine", "description": {**GFL}, "weights_file": "w.pth", "sha256": "abc"}
    harness.do(lambda session: session.add(Detector(**row)))
    unreadable = harness.submit({"student": {**GFL, "init": {"detector": "mine"}}})
    with dispatching(harness):
        harness.until_status(harness.submit(steps=3), "succeeded")
        until(lambda: harness.waiting_reason(unreadable).code == "weights_not_on_worker")
        message = harness.waiting_reason(unreadable).message
    assert message.endswith(f" cannot read w.pth of detector mine below its models folder: {text}.")


def test_an_impossible_file_name_is_reported_as_missing(harness):
    unreadable = harness.submit({"student": {**GFL, "init": {"weights": "é" * 200}}})
    with dispatching(harness):
        harness.until_status(harness.submit(steps=3), "succeeded")
        until(lambda: "File name too long" in harness.waiting_reason(unreadable).message)
