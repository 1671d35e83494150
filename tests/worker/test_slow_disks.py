"""A worker with a slow or hanging disk stays registered, reaps, and runs the jobs that it can."""

import hashlib
import threading

import pytest
from sqlalchemy import select, update
from waiting import until
from worker_harness import dispatching, split_columns

from store.artifacts.folder import ArtifactFolder
from store.db.tables import Dataset, Job, Worker
from store.scheduling import queue
from store.scheduling.queue import GpuCapacity
from worker.attempt import work_folder
from worker.dispatch import file_availability, file_checks
from worker.dispatch.file_availability import FileAvailability
from worker.dispatch.job_selector import JobSelector


class Disk:
    """A disk whose reads block until `answers` is set."""

    def __init__(self):
        self.is_read, self.answers = threading.Event(), threading.Event()

    def blocking(self, real):
        def read(*arguments):
            self.is_read.set()
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
    """The hashing of the data set's annotations hangs until the disk answers."""
    hashes = dict.fromkeys(("train", "val"), hashlib.sha256(b"{}").hexdigest())
    harness.do(lambda session: session.execute(update(Dataset).values(hashes=hashes)))
    monkeypatch.setattr(file_checks, "digest", disk.blocking(file_checks.digest))
    return disk


def add_uploaded(harness):
    """Add an uploaded data set, which requires no file on a worker's disk."""
    paths = split_columns("{}", "{}")
    harness.do(
        lambda session: session.add(Dataset(id="ds_up", name="up", upload_key=f"uploads/{'a' * 64}.zip", **paths))
    )


def submit_to(harness, dataset_id):
    job_id = harness.submit()
    harness.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(dataset_id=dataset_id)))
    return job_id


def add_lost_job(harness):
    job_id = harness.submit()
    lost = {"status": "running", "attempt": 1, "lease_owner": "dead", "lease_expires_at": 1.0}
    harness.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(lost)))
    return job_id


def wait_for_heartbeats(harness, heartbeat_file):
    """Wait for three updates of the registration and the heartbeat file."""
    until(heartbeat_file.exists)
    for _ in range(3):
        seen_at, touched = harness.rows(select(Worker.seen_at)), heartbeat_file.stat().st_mtime_ns
        until(lambda seen_at=seen_at: harness.rows(select(Worker.seen_at)) > seen_at)
        until(lambda touched=touched: heartbeat_file.stat().st_mtime_ns > touched)


def test_a_worker_keeps_running_while_files_are_hashed_and_then_takes_the_job(harness, hashing, tmp_path):
    job_id = harness.submit(steps=3)
    with dispatching(harness, heartbeat_file=tmp_path / "alive"):
        until(hashing.is_read.is_set)
        wait_for_heartbeats(harness, tmp_path / "alive")
        lost_id = add_lost_job(harness)
        harness.until_status(lost_id, "queued")
        assert (harness.job(job_id).status, harness.waiting_reason(job_id).code) == ("queued", "waiting_for_worker")
        [missing] = harness.rows(select(Worker.missing))
        assert not any(entry["owner"] for entry in missing), "unchecked requirements are not reported as missing"
        hashing.answers.set()
        harness.until_status(job_id, "succeeded")


def test_a_late_result_of_a_check_starts_a_job_before_the_next_poll(harness, hashing, tmp_path):
    job_id = harness.submit(steps=3)
    with dispatching(harness, poll_seconds=300, heartbeat_file=tmp_path / "alive"):
        until(hashing.is_read.is_set)
        until((tmp_path / "alive").exists)  # the poll that requested the check is over
        hashing.answers.set()
        harness.until_status(job_id, "succeeded")


def test_a_missing_requirement_is_reported_before_the_next_heartbeat(harness, tmp_path):
    job_id = harness.submit()
    long_intervals = {"heartbeat_seconds": 300, "fence_seconds": 400, "lease_seconds": 500, "poll_seconds": 300}
    with dispatching(harness, datasets_root=tmp_path / "elsewhere", **long_intervals):
        until(lambda: harness.waiting_reason(job_id).code == "dataset_not_on_worker")


def test_a_worker_reaps_while_its_work_folder_hangs(harness, disk, monkeypatch, tmp_path):
    monkeypatch.setattr(work_folder, "list_attempts", disk.blocking(work_folder.list_attempts))
    with dispatching(harness, heartbeat_file=tmp_path / "alive"):
        until(disk.is_read.is_set)
        wait_for_heartbeats(harness, tmp_path / "alive")
        harness.until_status(add_lost_job(harness), "succeeded")
        disk.answers.set()


def test_a_job_without_file_checks_is_selected_while_another_is_checked(harness, hashing):
    add_uploaded(harness)
    first, second = harness.submit(), submit_to(harness, "ds_up")
    selector = JobSelector(harness.database, FileAvailability(harness.settings))
    for _ in range(2):
        assert selector.select_jobs(GpuCapacity(0, 0)) == [second]
    hashing.answers.set()
    until(lambda: selector.select_jobs(GpuCapacity(0, 0)) == [first, second])


def test_no_gpu_is_reserved_for_a_job_whose_files_are_being_checked(harness, hashing):
    add_uploaded(harness)
    large, small = harness.submit(), submit_to(harness, "ds_up")
    values = {"devices": 4, "created_at": Job.created_at - 2 * queue.RESERVATION_SECONDS}
    harness.do(lambda session: session.execute(update(Job).where(Job.id == large).values(values)))
    selector = JobSelector(harness.database, FileAvailability(harness.settings))
    assert selector.select_jobs(GpuCapacity(gpus=4, free=1)) == [small]
    assert selector.exclusions().jobs == {large}, "a claim must skip it, too"
    hashing.answers.set()
    until(lambda: selector.select_jobs(GpuCapacity(gpus=4, free=1)) == [])


def test_a_result_is_valid_while_it_is_renewed_but_expires(harness, disk, monkeypatch):
    job_id = harness.submit()
    selector = JobSelector(harness.database, FileAvailability(harness.settings))
    until(lambda: selector.select_jobs(GpuCapacity(0, 0)) == [job_id])
    monkeypatch.setattr(file_checks, "inside", disk.blocking(file_checks.inside))
    monkeypatch.setattr(file_availability, "RENEW_SECONDS", 0.0)
    assert selector.select_jobs(GpuCapacity(0, 0)) == [job_id]
    until(disk.is_read.is_set)
    assert selector.select_jobs(GpuCapacity(0, 0)) == [job_id]
    monkeypatch.setattr(file_availability, "RECHECK_SECONDS", 0.0)
    assert selector.select_jobs(GpuCapacity(0, 0)) == []


def test_opening_the_artifacts_reads_no_disk(tmp_path, monkeypatch):
    """The dispatcher's thread opens the artifacts of every attempt, so a slow disk must not block it."""
    monkeypatch.delattr("pathlib.Path.resolve")
    ArtifactFolder(tmp_path)
