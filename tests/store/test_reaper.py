"""The reaper: after an outage of the database, living workers come first."""

import pytest
from sqlalchemy import exc, select, update

from store import reaper
from store.db.tables import Attempt, Job
from store.jobs import lifecycle
from store.reaper import Reaper
from store.settings import Settings
from store.states import AttemptEnd, JobStatus


@pytest.fixture
def clock(monkeypatch):
    """The seconds of the reaper's clock, in a list that a test may change."""
    seconds = [0.0]
    monkeypatch.setattr(reaper.time, "monotonic", lambda: seconds[0])
    return seconds


@pytest.fixture
def unavailable(monkeypatch):
    """A context in which the database raises OperationalError."""

    def fail(_):
        raise exc.OperationalError("SELECT 1", {}, Exception("no connection"))

    context = monkeypatch.context()

    class Outage:
        def __enter__(self):
            self.patch = context.__enter__()
            self.patch.setattr(reaper, "reap", fail)

        def __exit__(self, *details):
            context.__exit__(*details)

    return Outage()


def _expire(harness, lease):
    harness.do(lambda session: session.execute(update(Job).values(lease_expires_at=1.0)))
    return lease


def test_the_jobs_of_a_dead_worker_are_requeued_at_the_first_look(harness, clock):
    job_id = _expire(harness, harness.start()).job_id
    Reaper(Settings(), harness.database).reap_when_due()
    assert harness.job(job_id).status == JobStatus.QUEUED


def test_after_an_outage_a_living_worker_renews_its_lease_before_the_reaper_looks(harness, clock, unavailable):
    settings, lease = Settings(), _expire(harness, harness.start())
    reaper_ = Reaper(settings, harness.database)
    with unavailable, pytest.raises(exc.OperationalError):
        reaper_.reap_when_due()
    reaper_.reap_when_due()
    assert harness.job(lease.job_id).status == JobStatus.RUNNING
    harness.do(lifecycle.renew, lease, 60)
    clock[0] += 2 * settings.heartbeat_seconds
    reaper_.reap_when_due()
    assert harness.job(lease.job_id).status == JobStatus.RUNNING


def test_after_an_outage_the_jobs_of_a_dead_worker_are_requeued_two_heartbeats_later(harness, clock, unavailable):
    settings, lease = Settings(), _expire(harness, harness.start())
    reaper_ = Reaper(settings, harness.database)
    with unavailable, pytest.raises(exc.OperationalError):
        reaper_.reap_when_due()
    reaper_.reap_when_due()
    clock[0] += 2 * settings.heartbeat_seconds
    reaper_.reap_when_due()
    assert harness.job(lease.job_id).status == JobStatus.QUEUED
    assert harness.rows(select(Attempt.end)) == [AttemptEnd.LOST]
