"""F21: object storage with errors, timeouts and truncated bodies: no partial file is accepted, and no job is lost."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from failing_storage import FailingStorage
from object_storage import SECRET, Bucket
from oracle import Expected, check
from service_harness import ServiceHarness, job_spec, stub_losses
from sqlalchemy import select, update
from waiting import until
from worker_harness import WorkerHarness, in_background

from store.artifacts import object_storage
from store.artifacts.object_storage import PART_BYTES, ArtifactObjects
from store.db.tables import Attempt, Checkpoint, Job
from store.errors import ArtifactCorrupt, ArtifactsUnavailable
from store.initialise import initialise
from store.settings import Settings
from store.states import AttemptEnd

KEY = "job_1/checkpoints/step_000100.pth"
SMALL, LARGE = b"weights", os.urandom(2 * PART_BYTES + 1)
STEPS = 20


@pytest.fixture
def storage(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingStorage]:
    """Failing storage between the bucket and its clients, with short client timeouts."""
    with FailingStorage(bucket.endpoint) as storage:
        monkeypatch.setenv("AWS_ENDPOINT_URL", storage.url)
        monkeypatch.setitem(object_storage.CLIENT, "read_timeout", timedelta(seconds=0.5))
        quick = {"init_backoff": timedelta(milliseconds=10), "max_backoff": timedelta(milliseconds=50), "base": 2}
        monkeypatch.setitem(object_storage.RETRY, "backoff", quick)
        yield storage


@pytest.fixture
def objects(storage: FailingStorage, bucket: Bucket) -> ArtifactObjects:
    return ArtifactObjects(bucket.url)


@pytest.fixture
def put(objects: ArtifactObjects, tmp_path: Path) -> Callable[[bytes], None]:
    def put(content: bytes) -> None:
        (tmp_path / "source").write_bytes(content)
        objects.put(tmp_path / "source", KEY, sha256(content))

    return put


@pytest.fixture
def s3_harness(worker_harness: WorkerHarness, storage: FailingStorage, bucket: Bucket) -> WorkerHarness:
    """A worker_harness whose artifacts lie behind the failing storage."""
    settings = worker_harness.settings.model_copy(update={"artifacts_url": bucket.url})
    return WorkerHarness(settings, worker_harness.database)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("how", "times", "methods"),
    [
        ("503", 3, ["PUT", "POST", "HEAD", "GET"]),
        ("no response", 1, ["PUT", "POST", "HEAD", "GET"]),
        ("dropped request", 2, ["PUT", "POST", "HEAD", "GET"]),
        ("lost response", 1, ["PUT", "POST", "HEAD", "GET"]),
        ("partial body", 1, ["PUT", "HEAD", "GET"]),
    ],
)
def test_temporary_errors_are_retried(put, objects, storage, bucket, tmp_path, how, times, methods, content):
    for method in methods:
        with storage.inject(how, method, times=times):
            put(content)
            objects.fetch(KEY, sha256(content), tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == content, method
    assert bucket.objects() == [KEY]


@pytest.mark.parametrize("part", ["uploads", "uploadId"])
def test_an_upload_whose_first_or_last_response_is_truncated_has_failed(put, storage, part):
    with storage.inject("partial body", "POST", part=part), pytest.raises(ArtifactsUnavailable):
        put(LARGE)
    put(LARGE)


@pytest.mark.parametrize("how", ["503", "403", "no response", "dropped request"])
@pytest.mark.parametrize(
    ("part", "content"), [("", SMALL), ("uploads", LARGE), ("partNumber=2", LARGE), ("uploadId", LARGE)]
)
def test_permanent_errors_leave_no_partial_file_and_name_the_storage(put, storage, bucket, how, part, content):
    with storage.inject(how, "PUT", "POST", part=part), pytest.raises(ArtifactsUnavailable, match=bucket.url) as error:
        put(content)
    assert error.value.errno == errno.EIO
    assert "canary" not in str(error.value) and SECRET not in str(error.value)
    assert (bucket.objects(), bucket.uploads()) == ([], [])
    put(content)
    assert bucket.objects() == [KEY]


@pytest.mark.parametrize("how", ["503", "short body"])
def test_an_upload_whose_end_cannot_be_verified_has_failed(put, storage, how):
    with storage.inject(how, "HEAD"), pytest.raises(ArtifactsUnavailable):
        put(SMALL)


@pytest.mark.parametrize("how", ["503", "no response", "partial body", "short body"])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_truncated_download_leaves_no_file(put, objects, storage, tmp_path, how, content):
    put(content)
    for method in ("GET", "HEAD") if how == "short body" else ("GET",):
        with storage.inject(how, method), pytest.raises((ArtifactsUnavailable, ArtifactCorrupt)):
            objects.fetch(KEY, sha256(content), tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["source"]


def test_an_object_of_another_size_is_not_fetched(put, objects, storage, tmp_path):
    put(SMALL)
    for size in (len(SMALL) - 1, len(SMALL) + 1):
        with storage.inject("503", "GET") as fault, pytest.raises(ArtifactCorrupt):
            objects.fetch(KEY, sha256(SMALL), tmp_path / "target", size=size)
        assert fault.count == 0
    objects.fetch(KEY, sha256(SMALL), tmp_path / "target", size=len(SMALL))


def test_an_object_larger_than_the_free_space_is_not_fetched(put, objects, storage, tmp_path, monkeypatch):
    put(SMALL)
    monkeypatch.setattr(object_storage.shutil, "disk_usage", lambda _: SimpleNamespace(total=10, used=4, free=6))
    with storage.inject("503", "GET") as fault, pytest.raises(OSError, match="No space") as error:
        objects.fetch(KEY, sha256(SMALL), tmp_path / "target")
    assert (fault.count, error.value.errno) == (0, errno.ENOSPC)


@pytest.mark.parametrize("how", ["503", "403", "no response", "dropped request"])
def test_a_job_waits_for_the_storage_and_then_continues(
    s3_harness: WorkerHarness, storage: FailingStorage, how: str
) -> None:
    job_id = s3_harness.submit(steps=100, seconds=0.03)
    thread = in_background(s3_harness.supervisor())
    until(lambda: checkpoints(s3_harness, job_id))
    with storage.inject(how, "PUT"):
        thread.join()
    assert_waits_for_storage(s3_harness, job_id)
    check(s3_harness.database, s3_harness.artifacts, Expected(acknowledged=[job_id], unfinished=[job_id]))
    newest = max(checkpoint.step for checkpoint in checkpoints(s3_harness, job_id))
    assert_continues(s3_harness, job_id, steps=100)
    assert starts(s3_harness, job_id) == [0, newest]


@pytest.mark.parametrize("how", ["503", "no response", "partial body", "short body"])
def test_a_job_waits_for_a_checkpoint_that_cannot_be_fetched(
    s3_harness: WorkerHarness, storage: FailingStorage, how: str
) -> None:
    job_id = s3_harness.run(steps=STEPS, crash_at=13).id
    supervisor = s3_harness.supervisor()
    with storage.inject(how, "GET", part="_00000010_"):
        supervisor.run()
    assert_waits_for_storage(s3_harness, job_id)
    assert_continues(s3_harness, job_id)
    assert starts(s3_harness, job_id) == [0, None, 10], "no step is lost, and no attempt used up"


def test_foreign_objects_in_its_folder_do_not_fail_a_job(s3_harness: WorkerHarness, bucket: Bucket) -> None:
    job_id = s3_harness.submit(steps=STEPS)
    bucket.put_object(f"{job_id}/.DS_Store")
    s3_harness.supervisor().run()
    assert (s3_harness.job(job_id).status, s3_harness.losses(job_id)) == ("succeeded", stub_losses(STEPS))
    assert f"{job_id}/.DS_Store" not in bucket.objects()


def test_a_job_waits_for_weights_that_cannot_be_fetched(s3_harness: WorkerHarness, storage: FailingStorage) -> None:
    first = s3_harness.run(steps=STEPS)
    spec = {"kind": "distill", "teacher": {"job": first.id}}
    job_id = s3_harness.submit(spec, steps=STEPS)
    with storage.inject("503", "GET", part=f"{first.id}/checkpoints/student"):
        s3_harness.supervisor().run()
    assert_waits_for_storage(s3_harness, job_id)
    assert_continues(s3_harness, job_id)


def test_missing_weights_fail_the_job_and_are_named(s3_harness: WorkerHarness, bucket: Bucket) -> None:
    first = s3_harness.run(steps=STEPS)
    job_id = s3_harness.submit({"kind": "distill", "teacher": {"job": first.id}}, steps=STEPS)
    [student] = [key for key in bucket.objects() if "student" in key]
    s3_harness.artifacts.delete(student)
    s3_harness.supervisor().run()
    job = s3_harness.job(job_id)
    assert (job.status, job.error["code"]) == ("failed", "weights_not_found")
    assert job.error["message"] == f"The student of job {first.id} was deleted."


def test_a_changed_checkpoint_is_skipped(
    s3_harness: WorkerHarness, storage: FailingStorage, bucket: Bucket, tmp_path: Path
) -> None:
    job_id = s3_harness.run(steps=STEPS, crash_at=13).id
    [key] = [key for key in bucket.objects() if "_00000010_" in key]
    (tmp_path / "bad").write_bytes(b"other")
    s3_harness.artifacts.put(tmp_path / "bad", key, sha256(b"other"))
    with storage.inject("503", "GET", part=key) as fault:
        s3_harness.supervisor().run()
    assert fault.count == 0, "its size is another already"
    assert (s3_harness.job(job_id).status, starts(s3_harness, job_id)) == ("succeeded", [0, 5])
    assert s3_harness.losses(job_id) == stub_losses(STEPS)


def test_the_api_reports_the_error_and_never_serves_a_truncated_file(
    open_service: Callable[..., ServiceHarness], storage: FailingStorage, bucket: Bucket
) -> None:
    service = open_service(artifacts_url=bucket.url)
    service.start_api()
    worker = service.start_worker()
    job_id = service.post(steps=5)
    service.until_ended([job_id])
    worker.terminate()
    service.assert_all_succeeded([job_id], stub_losses(5))
    [student] = service.harness.rows(select(Checkpoint).where(Checkpoint.kind == "student"))
    path, key = f"/checkpoints/{student.id}/content", f"{student.key.rpartition('/')[2]}"
    whole = service.request("GET", path)
    assert whole is not None and sha256(whole.content) == student.sha256
    part = service.request("GET", path, headers={"Range": "bytes=2-4"})
    assert part is not None and (part.status_code, part.content) == (206, whole.content[2:5])
    with storage.inject("503", "HEAD", part=key):
        refused = service.request("GET", path)
    assert refused is not None and (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
    for how in ("503", "partial body", "short body"):
        with storage.inject(how, "GET", part=key):
            assert service.request("GET", path) is None, how
    again = service.request("GET", path)
    assert again is not None and again.content == whole.content
    with storage.inject("503"):
        assert service.request("GET", "/health/ready").status_code == 200  # type: ignore[union-attr]
        assert service.request("POST", "/jobs", json=job_spec()).status_code == 201  # type: ignore[union-attr]


def test_a_worker_on_another_machine_continues_from_the_storage(
    open_service: Callable[..., ServiceHarness], bucket: Bucket, tmp_path: Path
) -> None:
    """It shares the database, the data sets and the bucket, and no other file."""
    service = open_service(artifacts_url=bucket.url)
    service.start_api()
    first = service.start_worker()
    job_id = service.post(steps=60, seconds=0.03)
    until(lambda: len(checkpoints(service.harness, job_id)) == 2)
    first.kill()
    until(lambda: service.harness.trainers() == [], 5)
    elsewhere = tmp_path / "elsewhere"
    shared = service.settings.model_dump(include={"database_url", "datasets_root", "artifacts_url"})
    initialise(Settings(data=elsewhere, **shared))
    service.start_worker(data=elsewhere, **shared)
    service.until_ended([job_id])
    service.assert_all_succeeded([job_id], stub_losses(60))
    lost, succeeded = attempts(service.harness, job_id)
    assert (lost.end, succeeded.end) == (AttemptEnd.LOST, AttemptEnd.SUCCEEDED)
    assert succeeded.start_step >= 10
    until(lambda: list((elsewhere / "work").iterdir()) == [])
    assert not (service.settings.data / "artifacts").exists() and not (elsewhere / "artifacts").exists()


def assert_waits_for_storage(s3_harness: WorkerHarness, job_id: str) -> None:
    job = s3_harness.job(job_id)
    assert (job.status, job.status_reason_code) == ("queued", "waiting_for_storage")
    assert (
        "The artifact store cannot be used: s3://" in job.status_reason_message
        and "canary" not in job.status_reason_message
    )
    s3_harness.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(not_before=None)))


def assert_continues(s3_harness: WorkerHarness, job_id: str, steps: int = STEPS) -> None:
    s3_harness.supervisor().run()
    assert s3_harness.job(job_id).status == "succeeded"
    assert s3_harness.losses(job_id) == stub_losses(steps)
    check(s3_harness.database, s3_harness.artifacts, Expected(acknowledged=[job_id]))


def checkpoints(harness: WorkerHarness, job_id: str) -> list[Checkpoint]:
    return list(harness.rows(select(Checkpoint).where(Checkpoint.job_id == job_id)))


def starts(harness: WorkerHarness, job_id: str) -> list[int | None]:
    return [attempt.start_step for attempt in attempts(harness, job_id)]


def attempts(harness: WorkerHarness, job_id: str) -> list[Attempt]:
    return list(harness.rows(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)))
