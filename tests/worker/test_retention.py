"""Workers remove what is older than the settings `keep_..._days`, and nothing without them."""

import hashlib

import pytest
from sqlalchemy import select, update
from waiting import until
from worker_harness import dispatching

from store.db.tables import AuditEntry, Checkpoint, Event, Job, Metric
from worker.dispatch.clean_up import remove_expired

DAY = 86_400.0


@pytest.fixture
def old_job(harness):
    """The id of a succeeded job with a student, a training checkpoint and metrics that ended 10 days ago."""
    job_id = harness.run(steps=2).id
    source = harness.settings.data / "training-state"
    source.write_bytes(b"state")
    sha256 = hashlib.sha256(b"state").hexdigest()
    harness.artifacts.put(source, f"{job_id}/state", sha256)
    values = {"key": f"{job_id}/state", "sha256": sha256, "bytes": 5, "labels": [], "metrics": {}}
    row = Checkpoint(job_id=job_id, attempt=1, kind="training", step=1, epoch=1, **values)
    harness.do(lambda session: session.add(row))
    age(harness, job_id, days=10)
    return job_id


def age(harness, job_id, days, **values):
    change = update(Job).where(Job.id == job_id).values(finished_at=Job.finished_at - days * DAY, **values)
    harness.do(lambda session: session.execute(change))


def clean(harness, **days):
    remove_expired(harness.settings.model_copy(update=days), harness.database)


def contents(harness):
    kinds = set(harness.rows(select(Checkpoint.kind)))
    return kinds | ({"metrics"} if harness.rows(select(Metric.step)) else set())


def files(harness):
    return [path for path in harness.settings.artifacts_root.rglob("*") if path.is_file()]


def test_nothing_is_removed_by_default(harness, old_job):
    before = contents(harness)
    assert {"training", "metrics"} <= before
    clean(harness)
    assert contents(harness) == before


def test_a_job_that_is_kept_longer_stays(harness, old_job):
    clean(harness, keep_jobs_days=11, keep_checkpoints_days=11, keep_metrics_days=11)
    assert {"training", "metrics"} <= contents(harness)


def test_training_checkpoints_are_removed_with_their_files(harness, old_job):
    clean(harness, keep_checkpoints_days=9)
    assert "training" not in contents(harness) and "metrics" in contents(harness)
    assert not [path for path in files(harness) if path.name == "state"]
    assert harness.job(old_job).status == "succeeded"


def test_metrics_are_removed_once(harness, old_job):
    for _ in range(2):
        clean(harness, keep_metrics_days=9)
    assert "metrics" not in contents(harness) and "training" in contents(harness)
    [event] = harness.rows(select(Event).where(Event.job_id == old_job, Event.type == "cleaned"))
    assert event.data["by"] == "(retention)"


def test_a_job_is_removed_with_all_its_files_and_the_removal_is_audited(harness, old_job):
    clean(harness, keep_jobs_days=9)
    assert harness.rows(select(Job.id)) == [] and files(harness) == []
    [entry] = harness.rows(select(AuditEntry).where(AuditEntry.action == "job.delete"))
    assert (entry.target, entry.owner, entry.key_id) == (old_job, "(retention)", None)


def test_a_job_with_the_tag_keep_and_a_job_that_waits_stay(harness, old_job):
    age(harness, old_job, days=0, tags=["keep"])
    waiting = harness.submit()
    clean(harness, keep_jobs_days=9)
    assert set(harness.rows(select(Job.id))) == {old_job, waiting}


def test_a_worker_applies_the_settings_while_it_runs(harness, old_job):
    with dispatching(harness, keep_jobs_days=9):
        until(lambda: harness.rows(select(Job.id)) == [])
