"""A restored database: jobs that ran when the backup was made are queued again, and their workers are forgotten."""

import pytest
from sqlalchemy import select

from store.db.database import open_database
from store.db.tables import Attempt, Event, Worker
from store.initialise import initialise
from store.jobs import actions, lifecycle
from store.restored import release_jobs
from store.scheduling import worker_registry
from store.settings import Settings


@pytest.fixture
def release(harness, tmp_path):
    """Run `release_jobs` on the database of the harness."""
    url = harness.database.engine.url.render_as_string(hide_password=False)
    return lambda: release_jobs(Settings(data=tmp_path / "data", database_url=url))


def register_worker(harness):
    harness.do(worker_registry.register, "w", host="h", version="1", concurrency=1, gpus=[])


def test_a_job_that_ran_is_queued_and_its_history_names_the_restore(harness, release):
    register_worker(harness)
    lease = harness.start()
    assert release() == [lease.job_id]
    job = harness.job(lease.job_id)
    assert (job.status, job.lease_owner, job.not_before) == ("queued", None, None)
    assert harness.rows(select(Attempt.end)) == ["released"]
    newest = harness.rows(select(Event).where(Event.job_id == job.id).order_by(Event.seq.desc()))[0]
    assert newest.data["message"] == "Attempt 1: a backup was restored."
    assert harness.rows(select(Worker.id)) == []
    assert harness.claim(job.id).attempt == 2


def test_an_accepted_cancel_ends_the_job(harness, release):
    lease = harness.start()
    harness.do(actions.cancel, lease.job_id)
    release()
    assert harness.job(lease.job_id).status == "cancelled"


def test_queued_and_ended_jobs_stay_as_they_are(harness, release):
    lease, queued = harness.start(), harness.submit()
    harness.do(lifecycle.finish, lease, "failed", "internal_error")
    before = [harness.history(job_id) for job_id in (lease.job_id, queued)]
    assert release() == release() == []
    assert [harness.history(job_id) for job_id in (lease.job_id, queued)] == before


def test_a_new_database_has_nothing_to_release(tmp_path):
    settings = Settings(data=tmp_path / "data")
    assert release_jobs(settings) == []
    initialise(settings)
    assert open_database(settings.database_url).engine.dialect.name == "sqlite"
