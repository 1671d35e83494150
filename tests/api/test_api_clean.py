"""Retention: what POST /clean removes and keeps."""

from itertools import pairwise

import pytest
from sqlalchemy import select, update

from api.clean import service as clean_service
from frs import events
from store.db.tables import AuditEntry, Job
from store.states import EndReason, JobStatus

DAY = 86_400.0


@pytest.fixture
def ended(service, shapes):
    """A function that returns the id of a job, failed by default, that ended that many days ago and has files."""

    def make(days, status=JobStatus.FAILED, **changes):
        lease = service.claim(service.submit(**changes)["id"])
        service.checkpoint(lease, b"0123456789")
        service.checkpoint(lease, b"training state", kind="training")
        service.artifact(lease, "notes.txt", b"notes")
        service.evaluate(lease, "student", 0.5)
        service.record(lease, events.Metrics(step=1, epoch=1, values={"train/loss": 2.0, "train/lr": 0.1}))
        service.finish(lease, status, end_reason=EndReason.COMPLETED)
        long_ago = update(Job).where(Job.id == lease.job_id).values(finished_at=Job.finished_at - days * DAY)
        service.transact(lambda session: session.execute(long_ago))
        return lease.job_id

    return make


def clean(service, *contents, **rules):
    body = {"contents": contents or ["jobs"], "older_than_days": 30, "dry_run": False} | rules
    response = service.client.post("/clean", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def job_ids(service):
    return {job["id"] for job in service.get("/jobs")["data"]}


def files(service):
    return {path.name for path in service.settings.artifacts_root.rglob("*") if path.is_file()}


def test_a_dry_run_is_the_default_and_reports_what_a_run_removes(service, ended):
    old = ended(40)
    before = files(service)
    body = {"contents": ["jobs"], "older_than_days": 30}
    report = service.client.post("/clean", json=body).json()
    assert (report["dry_run"], report["job_ids"]) == (True, [old])
    assert job_ids(service) == {old} and files(service) == before
    assert clean(service) == report | {"dry_run": False}
    assert job_ids(service) == set() and files(service) == set()


def test_recent_running_and_tagged_jobs_are_kept(service, ended):
    recent, tagged, running = ended(10), ended(40, tags=["keep"]), service.submit()["id"]
    other_tag = ended(40, tags=["paper"])
    assert clean(service, keep_tag="paper")["job_ids"] == [tagged]
    assert job_ids(service) == {recent, running, other_tag}


def test_the_newest_jobs_of_an_owner_are_kept(service, ended):
    oldest, *newest = (ended(days) for days in (60, 50, 40))
    assert clean(service, keep_last=2)["job_ids"] == [oldest]
    assert job_ids(service) == {*newest}


def test_a_job_that_another_job_needs_is_skipped(service, ended):
    teacher = ended(40, JobStatus.SUCCEEDED)
    service.submit(
        {"kind": "distill", "dataset": "shapes", "teacher": {"job": teacher}, "student": {"architecture": "gfl"}}
    )
    report = clean(service)
    assert (report["skipped"], report["job_ids"]) == (1, [])
    assert teacher in job_ids(service)


def test_training_checkpoints_are_removed_and_students_stay(service, ended):
    old = ended(40)
    report = clean(service, "checkpoints")
    assert (report["checkpoints"], report["bytes"]) == (1, len(b"training state"))
    kinds = [checkpoint["kind"] for checkpoint in service.get(f"/jobs/{old}/checkpoints")["data"]]
    assert kinds == ["student"]
    assert clean(service, "checkpoints")["checkpoints"] == 0


def test_metrics_are_removed_and_evaluations_stay(service, ended):
    old = ended(40)
    curves = service.get(f"/jobs/{old}/metrics")["series"]
    assert clean(service, "metrics")["metrics"] == sum(series["count"] for series in curves) == 2
    assert service.get(f"/jobs/{old}/metrics")["series"] == []
    assert service.get(f"/jobs/{old}/evaluations")["data"]


def test_many_jobs_are_removed_in_parts(service, ended, monkeypatch):
    monkeypatch.setattr(clean_service, "MAX_GROUPS", 2)
    ids = [ended(40) for _ in range(3)]
    first = clean(service, "checkpoints")
    assert (first["groups"], first["next_after"]) == (2, ids[1])
    assert clean(service, "checkpoints", after=first["next_after"])["groups"] == 1
    assert all(before < after for before, after in pairwise(ids))


def test_a_removal_is_audited(service, ended):
    old = ended(40)
    clean(service, "checkpoints")
    with service.database.read() as session:
        [entry] = session.scalars(select(AuditEntry).where(AuditEntry.action == "job.clean")).all()
    assert (entry.target, entry.details["contents"]) == (old, ["checkpoints"])
