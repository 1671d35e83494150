"""F21: object storage that answers 5xx, is silent, breaks off, lies: nothing half is taken for whole, no job is lost."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from failing_storage import FailingStorage
from object_storage import SECRET, Bucket
from oracle import Expected, check
from service_harness import ServiceHarness, losses_of, spec
from sqlalchemy import select, update
from worker_harness import WorkerHarness, in_background, until

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
    """Between the bucket and whoever reads the environment; the client's patience is a test's."""
    with FailingStorage(bucket.endpoint) as storage:
        monkeypatch.setenv("AWS_ENDPOINT_URL", storage.address)
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
def shop(workshop: WorkerHarness, storage: FailingStorage, bucket: Bucket) -> WorkerHarness:
    """A workshop whose artifacts lie behind the failing storage."""
    settings = workshop.settings.model_copy(update={"artifacts_url": bucket.url})
    return WorkerHarness(settings, workshop.database)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("how", "times", "methods"),
    [
        ("503", 3, ["PUT", "POST", "HEAD", "GET"]),
        ("silence", 1, ["PUT", "POST", "HEAD", "GET"]),
        ("broken off", 2, ["PUT", "POST", "HEAD", "GET"]),
        ("lost answer", 1, ["PUT", "POST", "HEAD", "GET"]),
        ("cut short", 1, ["PUT", "HEAD", "GET"]),
    ],
)
def test_what_passes_is_not_noticed(put, objects, storage, bucket, tmp_path, how, times, methods, content):
    for method in methods:
        with storage.fails(how, method, times=times):
            put(content)
            objects.fetch(KEY, sha256(content), tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == content, method
    assert bucket.objects() == [KEY]


@pytest.mark.parametrize("part", ["uploads", "uploadId"])
def test_an_upload_whose_begin_or_end_is_answered_by_half_has_failed(put, storage, part):
    with storage.fails("cut short", "POST", part=part), pytest.raises(ArtifactsUnavailable):
        put(LARGE)
    put(LARGE)


@pytest.mark.parametrize("how", ["503", "403", "silence", "broken off"])
@pytest.mark.parametrize(
    ("part", "content"), [("", SMALL), ("uploads", LARGE), ("partNumber=2", LARGE), ("uploadId", LARGE)]
)
def test_what_stays_leaves_nothing_half_and_says_which_store(put, storage, bucket, how, part, content):
    with storage.fails(how, "PUT", "POST", part=part), pytest.raises(ArtifactsUnavailable, match=bucket.url) as error:
        put(content)
    assert error.value.errno == errno.EIO
    assert "canary" not in str(error.value) and SECRET not in str(error.value)
    assert (bucket.objects(), bucket.uploads()) == ([], [])
    put(content)
    assert bucket.objects() == [KEY]


@pytest.mark.parametrize("how", ["503", "truncated"])
def test_an_upload_whose_end_cannot_be_verified_did_not_happen(put, storage, how):
    with storage.fails(how, "HEAD"), pytest.raises(ArtifactsUnavailable):
        put(SMALL)


@pytest.mark.parametrize("how", ["503", "silence", "cut short", "truncated"])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_download_that_was_cut_short_is_never_there(put, objects, storage, tmp_path, how, content):
    put(content)
    for method in ("GET", "HEAD") if how == "truncated" else ("GET",):
        with storage.fails(how, method), pytest.raises((ArtifactsUnavailable, ArtifactCorrupt)):
            objects.fetch(KEY, sha256(content), tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["source"]


def test_nothing_is_fetched_that_calls_itself_larger_or_smaller_than_it_should_be(put, objects, storage, tmp_path):
    put(SMALL)
    for size in (len(SMALL) - 1, len(SMALL) + 1):
        with storage.fails("503", "GET") as asked, pytest.raises(ArtifactCorrupt):
            objects.fetch(KEY, sha256(SMALL), tmp_path / "target", size=size)
        assert asked.happened == 0
    objects.fetch(KEY, sha256(SMALL), tmp_path / "target", size=len(SMALL))


def test_nothing_is_fetched_that_the_disk_cannot_hold(put, objects, storage, tmp_path, monkeypatch):
    put(SMALL)
    monkeypatch.setattr(object_storage.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 4, 6))
    with storage.fails("503", "GET") as asked, pytest.raises(OSError, match="No space") as error:
        objects.fetch(KEY, sha256(SMALL), tmp_path / "target")
    assert (asked.happened, error.value.errno) == (0, errno.ENOSPC)


@pytest.mark.parametrize("how", ["503", "403", "silence", "broken off"])
def test_a_job_waits_for_the_store_and_then_goes_on(shop: WorkerHarness, storage: FailingStorage, how: str) -> None:
    job_id = shop.submit(steps=100, seconds=0.03)
    thread = in_background(shop.supervisor())
    until(lambda: checkpoints(shop, job_id))
    with storage.fails(how, "PUT"):
        thread.join()
    waits_for_storage(shop, job_id)
    check(shop.database, shop.artifacts, Expected(acknowledged=[job_id], unfinished=[job_id]))
    newest = max(checkpoint.step for checkpoint in checkpoints(shop, job_id))
    goes_on(shop, job_id, steps=100)
    assert starts(shop, job_id) == [0, newest]


@pytest.mark.parametrize("how", ["503", "silence", "cut short", "truncated"])
def test_a_checkpoint_that_cannot_be_fetched_is_waited_for(
    shop: WorkerHarness, storage: FailingStorage, how: str
) -> None:
    job_id = shop.run(steps=STEPS, crash_at=13).id
    supervisor = shop.supervisor()
    with storage.fails(how, "GET", part="_00000010_"):
        supervisor.run()
    waits_for_storage(shop, job_id)
    goes_on(shop, job_id)
    assert starts(shop, job_id) == [0, None, 10], "no step is lost, and no attempt used up"


def test_no_job_fails_of_what_somebody_else_has_laid_into_its_folder(shop: WorkerHarness, bucket: Bucket) -> None:
    job_id = shop.submit(steps=STEPS)
    bucket.put_object(f"{job_id}/.DS_Store")
    shop.supervisor().run()
    assert (shop.job(job_id).status, shop.losses(job_id)) == ("succeeded", losses_of(STEPS))
    assert f"{job_id}/.DS_Store" not in bucket.objects()


def test_weights_that_cannot_be_fetched_are_waited_for(shop: WorkerHarness, storage: FailingStorage) -> None:
    first = shop.run(steps=STEPS)
    spec = {"kind": "distill", "teacher": {"job": first.id}}
    job_id = shop.submit(spec, steps=STEPS)
    with storage.fails("503", "GET", part=f"{first.id}/checkpoints/student"):
        shop.supervisor().run()
    waits_for_storage(shop, job_id)
    goes_on(shop, job_id)


def test_weights_that_are_gone_fail_the_job_and_say_whose(shop: WorkerHarness, bucket: Bucket) -> None:
    first = shop.run(steps=STEPS)
    job_id = shop.submit({"kind": "distill", "teacher": {"job": first.id}}, steps=STEPS)
    [student] = [key for key in bucket.objects() if "student" in key]
    shop.artifacts.delete(student)
    shop.supervisor().run()
    job = shop.job(job_id)
    assert (job.status, job.error["code"]) == ("failed", "weights_not_found")
    assert job.error["message"] == f"The student of job {first.id} is gone."


def test_a_checkpoint_that_has_changed_is_passed_over(
    shop: WorkerHarness, storage: FailingStorage, bucket: Bucket, tmp_path: Path
) -> None:
    job_id = shop.run(steps=STEPS, crash_at=13).id
    [key] = [key for key in bucket.objects() if "_00000010_" in key]
    (tmp_path / "bad").write_bytes(b"other")
    shop.artifacts.put(tmp_path / "bad", key, sha256(b"other"))
    with storage.fails("503", "GET", part=key) as asked:
        shop.supervisor().run()
    assert asked.happened == 0, "its size is another already"
    assert (shop.job(job_id).status, starts(shop, job_id)) == ("succeeded", [0, 5])
    assert shop.losses(job_id) == losses_of(STEPS)


def test_the_api_says_so_and_never_serves_a_part_as_the_whole(
    service_with: Callable[..., ServiceHarness], storage: FailingStorage, bucket: Bucket
) -> None:
    service_harness = service_with(artifacts_url=bucket.url)
    service_harness.api()
    worker = service_harness.worker()
    job_id = service_harness.post(steps=5)
    service_harness.until_ended([job_id])
    worker.terminate()
    service_harness.all_is_well([job_id], losses_of(5))
    [student] = service_harness.harness.rows(select(Checkpoint).where(Checkpoint.kind == "student"))
    path, key = f"/checkpoints/{student.id}/content", f"{student.key.rpartition('/')[2]}"
    whole = service_harness.ask("GET", path)
    assert whole is not None and sha256(whole.content) == student.sha256
    part = service_harness.ask("GET", path, headers={"Range": "bytes=2-4"})
    assert part is not None and (part.status_code, part.content) == (206, whole.content[2:5])
    with storage.fails("503", "HEAD", part=key):
        refused = service_harness.ask("GET", path)
    assert refused is not None and (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
    for how in ("503", "cut short", "truncated"):
        with storage.fails(how, "GET", part=key):
            assert service_harness.ask("GET", path) is None, how
    again = service_harness.ask("GET", path)
    assert again is not None and again.content == whole.content
    with storage.fails("503"):
        assert service_harness.ask("GET", "/health/ready").status_code == 200  # type: ignore[union-attr]
        assert service_harness.ask("POST", "/jobs", json=spec()).status_code == 201  # type: ignore[union-attr]


def test_another_worker_on_another_machine_goes_on_from_the_store(
    service_with: Callable[..., ServiceHarness], bucket: Bucket, tmp_path: Path
) -> None:
    """It shares the database, the data sets and the bucket, and no other file."""
    service_harness = service_with(artifacts_url=bucket.url)
    service_harness.api()
    first = service_harness.worker()
    job_id = service_harness.post(steps=60, seconds=0.03)
    until(lambda: len(checkpoints(service_harness.harness, job_id)) == 2)
    first.kill()
    until(lambda: service_harness.harness.trainers() == [], 5)
    elsewhere = tmp_path / "elsewhere"
    shared = service_harness.settings.model_dump(include={"database_url", "datasets_root", "artifacts_url"})
    initialise(Settings(data=elsewhere, **shared))
    service_harness.worker(data=elsewhere, **shared)
    service_harness.until_ended([job_id])
    service_harness.all_is_well([job_id], losses_of(60))
    lost, succeeded = attempts(service_harness.harness, job_id)
    assert (lost.end, succeeded.end) == (AttemptEnd.LOST, AttemptEnd.SUCCEEDED)
    assert succeeded.start_step >= 10
    until(lambda: list((elsewhere / "work").iterdir()) == [])
    assert not (service_harness.settings.data / "artifacts").exists() and not (elsewhere / "artifacts").exists()


def waits_for_storage(shop: WorkerHarness, job_id: str) -> None:
    job = shop.job(job_id)
    assert (job.status, job.status_reason_code) == ("queued", "waiting_for_storage")
    assert "store of artifacts" in job.status_reason_message and "canary" not in job.status_reason_message
    shop.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(not_before=None)))


def goes_on(shop: WorkerHarness, job_id: str, steps: int = STEPS) -> None:
    shop.supervisor().run()
    assert shop.job(job_id).status == "succeeded"
    assert shop.losses(job_id) == losses_of(steps)
    check(shop.database, shop.artifacts, Expected(acknowledged=[job_id]))


def checkpoints(harness: WorkerHarness, job_id: str) -> list[Checkpoint]:
    return list(harness.rows(select(Checkpoint).where(Checkpoint.job_id == job_id)))


def starts(harness: WorkerHarness, job_id: str) -> list[int | None]:
    return [attempt.start_step for attempt in attempts(harness, job_id)]


def attempts(harness: WorkerHarness, job_id: str) -> list[Attempt]:
    return list(harness.rows(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)))
