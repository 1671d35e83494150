"""Jobs whose spec a worker's version cannot read, or whose needs it fails to look up, stop nobody else's."""

import errno
import os

import pytest
from sqlalchemy import select, update
from worker_harness import dispatching, until

from frs.spec import JobSpec
from store.db.tables import Detector, Job, Worker, WorkerRequest
from store.requests import worker_requests
from store.states import RequestKind
from worker.dispatch import file_checks, job_selector

GFL = {"architecture": "gfl"}


def newer(spec):
    """As a version writes it that knows more than this one."""
    return spec | {"schedule": {**spec.get("schedule", {}), "novelty": 1}}


def submit_a_newer_job(harness):
    job_id = harness.submit()
    spec = newer(harness.job(job_id).spec)
    harness.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(spec=spec)))
    return job_id


def lacking(harness):
    return [lack["key"] for lacks in harness.rows(select(Worker.missing)) for lack in lacks]


def test_a_job_of_a_newer_version_is_left_to_a_worker_that_can_read_it(harness):
    newer_id = submit_a_newer_job(harness)
    with dispatching(harness):
        harness.until_status(harness.submit(steps=3), "succeeded")
        until(lambda: harness.waiting(newer_id).code == "spec_unknown_to_worker")
        said = harness.waiting(newer_id)
        assert "runs version" in said.message and "cannot read a job's spec: schedule.novelty." in said.message
        assert "GET /workers" in said.hint
        seen_at = harness.rows(select(Worker.seen_at))
        until(lambda: harness.rows(select(Worker.seen_at)) > seen_at)
    assert (harness.job(newer_id).status, harness.job(newer_id).attempt) == ("queued", 0)


def test_a_probe_of_a_newer_version_too(harness):
    spec = JobSpec.model_validate({"kind": "train", "dataset": "shapes", "student": GFL}).model_dump(mode="json")
    probes = [{"spec": one, "dataset_id": "ds_shapes"} for one in (newer(spec), {"kind": "other"}, spec)]
    ids = [harness.do(worker_requests.add, RequestKind.PROBE, request, owner="admin").id for request in probes]

    def statuses():
        return [harness.rows(select(WorkerRequest.status).where(WorkerRequest.id == id))[0] for id in ids]

    with dispatching(harness):
        until(lambda: statuses() == ["queued", "queued", "succeeded"])
        until(lambda: lacking(harness) == [f"spec/{id}" for id in ids[:2]])


def test_many_of_them_do_not_hide_what_else_is_lacking(harness, tmp_path, monkeypatch):
    monkeypatch.setattr("worker.dispatch.availability._MAX_REPORTED", 2)
    for _ in range(3):
        submit_a_newer_job(harness)
    harness.submit()
    with dispatching(harness, datasets_root=tmp_path):
        until(lambda: [key.partition("/")[0] for key in lacking(harness)] == ["ds_shapes", "spec"])


def test_whatever_one_jobs_needs_raise_the_others_are_taken(harness, monkeypatch):
    broken, requirements_of = harness.submit(), job_selector.requirements_of

    def failing(session, job):
        if job.id == broken:
            raise KeyError("nobody foresaw it")
        return requirements_of(session, job)

    monkeypatch.setattr(job_selector, "requirements_of", failing)
    with dispatching(harness):
        harness.until_status(harness.submit(steps=3), "succeeded")
        until(lambda: "KeyError" in harness.waiting(broken).message)


@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"), (MemoryError(), "MemoryError")],
)
def test_a_file_that_cannot_be_read_is_lacking_and_why_is_said(harness, monkeypatch, error, said):
    def failing(path):
        raise error

    monkeypatch.setattr(file_checks, "digest", failing)
    (harness.settings.models_root / "w.pth").write_bytes(b"weights")
    row = {"id": "det_mine", "name": "mine", "description": {**GFL}, "weights_file": "w.pth", "sha256": "abc"}
    harness.do(lambda session: session.add(Detector(**row)))
    unreadable = harness.submit({"student": {**GFL, "init": {"detector": "mine"}}})
    with dispatching(harness):
        harness.until_status(harness.submit(steps=3), "succeeded")
        until(lambda: harness.waiting(unreadable).code == "weights_not_on_worker")
        message = harness.waiting(unreadable).message
    assert message.endswith(f" cannot read w.pth of detector mine below its models folder: {said}.")


def test_a_name_that_no_file_can_have_is_lacking(harness):
    unreadable = harness.submit({"student": {**GFL, "init": {"weights": "é" * 200}}})
    with dispatching(harness):
        harness.until_status(harness.submit(steps=3), "succeeded")
        until(lambda: "File name too long" in harness.waiting(unreadable).message)
