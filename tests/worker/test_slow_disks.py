"""A worker whose disk takes its time, or for ever: it checks in, reaps and shows life, and takes what it can."""

import hashlib
import threading
import time

import pytest
from sqlalchemy import select, update
from worker_harness import dispatching, until

from store.artifacts.folder import ArtifactFolder
from store.db.tables import Dataset, Job, Worker
from store.scheduling import queue
from store.scheduling.queue import GpuCapacity
from worker.attempt import work_folder
from worker.dispatch import availability, file_checks
from worker.dispatch.availability import Availability
from worker.dispatch.job_selector import JobSelector


class Disk:
    def __init__(self):
        self.is_asked, self.answers = threading.Event(), threading.Event()

    def waits(self, real):
        def read(*arguments):
            self.is_asked.set()
            self.answers.wait(60)
            return real(*arguments)

        return read


@pytest.fixture
def disk():
    disk = Disk()
    yield disk
    disk.answers.set()


@pytest.fixture
def hashing(harness, disk, monkeypatch):
    """The data set's annotations have to be hashed, and that hangs until the disk answers."""
    hashes = dict.fromkeys(("train", "val"), hashlib.sha256(b"{}").hexdigest())
    harness.do(lambda session: session.execute(update(Dataset).values(hashes=hashes)))
    monkeypatch.setattr(file_checks, "digest", disk.waits(file_checks.digest))
    return disk


def add_uploaded(harness):
    """A data set for which no disk has to be looked at."""
    paths = {f"{half}_{what}": half for half in ("train", "val") for what in ("images", "annotations")}
    harness.do(
        lambda session: session.add(Dataset(id="ds_up", name="up", upload_key=f"uploads/{'a' * 64}.zip", **paths))
    )


def submit_to(harness, dataset_id):
    job_id = harness.submit()
    harness.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(dataset_id=dataset_id)))
    return job_id


def lose_a_job(harness):
    job_id = harness.submit()
    lost = {"status": "running", "attempt": 1, "lease_owner": "dead", "lease_expires_at": 1.0}
    harness.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(lost)))
    return job_id


def goes_on(harness, heartbeat_file):
    """Through a few turns."""
    until(heartbeat_file.exists)
    for _ in range(3):
        seen_at, touched = harness.rows(select(Worker.seen_at)), heartbeat_file.stat().st_mtime_ns
        until(lambda seen_at=seen_at: harness.rows(select(Worker.seen_at)) > seen_at)
        until(lambda touched=touched: heartbeat_file.stat().st_mtime_ns > touched)


def test_it_goes_on_while_it_hashes_and_takes_the_job_then(harness, hashing, tmp_path):
    job_id = harness.submit(steps=3)
    with dispatching(harness, heartbeat_file=tmp_path / "alive"):
        until(hashing.is_asked.is_set)
        goes_on(harness, tmp_path / "alive")
        lost_id = lose_a_job(harness)
        harness.until_status(lost_id, "queued")
        assert (harness.job(job_id).status, harness.waiting(job_id).code) == ("queued", "waiting_for_worker")
        assert harness.rows(select(Worker.missing)) == [[]], "what nobody has looked at yet is not lacking"
        hashing.answers.set()
        harness.until_status(job_id, "succeeded")


def test_what_is_found_out_late_is_not_left_until_the_next_poll(harness, hashing):
    job_id = harness.submit(steps=3)
    with dispatching(harness, poll_seconds=300):
        until(hashing.is_asked.is_set)
        time.sleep(0.5)  # the turn that asked is over
        hashing.answers.set()
        harness.until_status(job_id, "succeeded")


def test_what_is_lacking_is_not_told_at_the_next_heartbeat_but_at_once(harness, tmp_path):
    job_id = harness.submit()
    seldom = {"heartbeat_seconds": 300, "fence_seconds": 400, "lease_seconds": 500, "poll_seconds": 300}
    with dispatching(harness, datasets_root=tmp_path / "elsewhere", **seldom):
        until(lambda: harness.waiting(job_id).code == "dataset_not_on_worker")


def test_it_reaps_while_its_work_folder_hangs(harness, disk, monkeypatch, tmp_path):
    monkeypatch.setattr(work_folder, "attempts", disk.waits(work_folder.attempts))
    with dispatching(harness, heartbeat_file=tmp_path / "alive"):
        until(disk.is_asked.is_set)
        goes_on(harness, tmp_path / "alive")
        harness.until_status(lose_a_job(harness), "succeeded")
        disk.answers.set()


def test_a_job_that_needs_no_look_is_taken_meanwhile(harness, hashing):
    add_uploaded(harness)
    first, second = harness.submit(), submit_to(harness, "ds_up")
    chosen = JobSelector(harness.database, Availability(harness.settings))
    for _ in range(2):
        assert chosen.jobs(GpuCapacity(0, 0)) == [second]
    hashing.answers.set()
    until(lambda: chosen.jobs(GpuCapacity(0, 0)) == [first, second])


def test_no_gpu_is_kept_meanwhile(harness, hashing):
    add_uploaded(harness)
    large, small = harness.submit(), submit_to(harness, "ds_up")
    waited = {"devices": 4, "created_at": Job.created_at - 2 * queue.RESERVATION_SECONDS}
    harness.do(lambda session: session.execute(update(Job).where(Job.id == large).values(waited)))
    chosen = JobSelector(harness.database, Availability(harness.settings))
    assert chosen.jobs(GpuCapacity(gpus=4, free=1)) == [small]
    assert chosen.exclusions.jobs == {large}, "a claim must leave it, too"
    hashing.answers.set()
    until(lambda: chosen.jobs(GpuCapacity(gpus=4, free=1)) == [])


def test_what_was_found_holds_while_it_is_looked_up_anew_but_not_for_ever(harness, disk, monkeypatch):
    job_id = harness.submit()
    chosen = JobSelector(harness.database, Availability(harness.settings))
    until(lambda: chosen.jobs(GpuCapacity(0, 0)) == [job_id])
    monkeypatch.setattr(file_checks, "inside", disk.waits(file_checks.inside))
    monkeypatch.setattr(availability, "RENEW_SECONDS", 0.0)
    assert chosen.jobs(GpuCapacity(0, 0)) == [job_id]
    until(disk.is_asked.is_set)
    assert chosen.jobs(GpuCapacity(0, 0)) == [job_id]
    monkeypatch.setattr(availability, "RECHECK_SECONDS", 0.0)
    assert chosen.jobs(GpuCapacity(0, 0)) == []


def test_the_artifacts_are_not_looked_at_before_they_are_needed(tmp_path, monkeypatch):
    """A lease is made a run by the thread that checks in."""
    monkeypatch.delattr("pathlib.Path.resolve")
    ArtifactFolder(tmp_path)
