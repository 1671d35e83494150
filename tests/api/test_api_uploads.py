"""Uploads of data sets as archives."""

import fcntl
import gzip
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio.lowlevel
import pytest

from api import upload_body
from api.app import create_app
from api.http.json_body import STREAMED
from store.artifacts import free_space, local_files
from store.settings import Settings

DiskUsage = type(shutil.disk_usage("/"))
ZIP = {"Content-Type": "application/zip"}


def zip_folder(folder: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
    return stream.getvalue()


def tar_folder(folder: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(folder, folder.name)
    return stream.getvalue()


@pytest.fixture
def archive(service):
    return zip_folder(service.settings.datasets_root / "shapes")


def send(service, content, name="mine", headers=ZIP, **query):
    return service.client.post("/datasets/upload", params={"name": name, **query}, content=content, headers=headers)


def files_of(settings: Settings) -> set[str]:
    """Return the names of all files and folders that uploads have stored."""
    unpacked = {path.name for path in settings.uploads_root.iterdir() if path.name not in (".lock", ".released")}
    kept = [path for folder in ("datasets", "uploads") for path in (settings.artifacts_root / folder).glob("*")]
    return unpacked | {path.name for path in kept}


def test_an_archive_becomes_a_checked_data_set(service, archive, shapes):
    response = send(service, archive)
    dataset = response.json()
    assert response.status_code == 201, dataset
    assert response.headers["location"] == f"/datasets/{dataset['id']}"
    assert (dataset["status"], dataset["uploaded"], dataset["classes"]) == ("ready", True, shapes["classes"])
    assert dataset["counts"] == shapes["counts"]
    assert service.get("/datasets/mine") == dataset
    [stored] = (service.settings.artifacts_root / "datasets").iterdir()
    digest = hashlib.sha256(stored.read_bytes()).hexdigest()
    assert files_of(service.settings) == {digest, f"{digest}.tar"}


@pytest.mark.parametrize("stored_before", [False, True])
def test_artifact_storage_is_not_used_while_the_lock_is_held(service, archive, monkeypatch, stored_before):
    """Artifact storage can be slow, or take 30 s to fail."""
    calls = []

    def assert_unlocked(name, real):
        def use(*arguments):
            with (service.settings.uploads_root / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if the lock is held
            calls.append(name)
            return real(*arguments)

        return use

    if stored_before:
        send(service, archive, "before")
    for name in ("put", "open"):
        monkeypatch.setattr(service.artifacts, name, assert_unlocked(name, getattr(service.artifacts, name)))
    assert send(service, archive).status_code == 201
    assert calls == (["open"] if stored_before else ["open", "put"])


@pytest.mark.parametrize("others", [1, 2])
def test_an_archive_deleted_by_another_request_is_stored_again(service, archive, monkeypatch, others):
    """Other requests add and delete the same archive between the put and the insert of this request."""
    real, first_put_done = service.artifacts.put, threading.Event()

    def put(*arguments):
        real(*arguments)
        if not first_put_done.is_set():
            first_put_done.set()
            for number in range(others):
                send(service, archive, f"other {number}")
            for number in range(others):
                assert service.client.delete(f"/datasets/other {number}").status_code == 204

    monkeypatch.setattr(service.artifacts, "put", put)
    assert send(service, archive).status_code == 201
    digest = min(files_of(service.settings), key=len)
    assert files_of(service.settings) == {digest, f"{digest}.tar"}
    assert service.artifacts.path(f"datasets/{digest}.tar").exists()


def test_an_archive_missing_in_the_artifact_store_is_stored_again(service, archive):
    send(service, archive)
    [kept] = (service.settings.artifacts_root / "datasets").iterdir()
    content = kept.read_bytes()
    kept.unlink()
    assert send(service, archive, name="again").status_code == 201
    assert kept.read_bytes() == content


def test_the_same_data_set_in_other_archives_is_stored_once(service, archive):
    content = gzip.compress(tar_folder(service.settings.datasets_root / "shapes"))
    assert send(service, archive, "one").status_code == 201
    assert send(service, content, "two", {"Content-Type": "application/gzip"}).status_code == 201
    assert len(files_of(service.settings)) == 2


@pytest.mark.parametrize(
    ("pack", "media_type"),
    [(tar_folder, "application/x-tar"), (lambda folder: gzip.compress(tar_folder(folder)), "application/gzip")],
)
def test_tar_files_are_accepted(service, pack, media_type):
    content = pack(service.settings.datasets_root / "shapes")
    response = send(service, content, headers={"Content-Type": media_type})
    assert response.json()["status"] == "ready"


def test_a_job_can_use_an_uploaded_data_set(service, archive):
    send(service, archive)
    assert service.submit(dataset="mine")["status"] == "queued"
    service.assert_problem(service.client.delete("/datasets/mine"), 409, "dataset_in_use")
    assert len(files_of(service.settings)) == 2


def test_an_archive_uploaded_twice_is_stored_once_until_both_data_sets_are_deleted(service, archive):
    for name in ("one", "two"):
        assert send(service, archive, name).status_code == 201
    assert len(files_of(service.settings)) == 2
    assert service.client.delete("/datasets/one").status_code == 204
    assert len(files_of(service.settings)) == 2
    assert service.client.delete("/datasets/two").status_code == 204
    assert files_of(service.settings) == set()


def test_a_fraction_of_the_training_images_can_be_used_for_validation(service, tmp_path):
    folder = shutil.copytree(service.settings.datasets_root / "shapes", tmp_path / "train_only")
    shutil.rmtree(folder / "val")
    problem = service.assert_problem(send(service, zip_folder(folder)), 422, "no_validation_split")
    assert "val_fraction" in problem["hint"]
    dataset = send(service, zip_folder(folder), val_fraction=0.33).json()
    assert [dataset["counts"][split]["images"] for split in ("train", "val")] == [4, 2]
    assert dataset["status"] == "ready"


def test_issues_of_an_uploaded_data_set_are_reported(service):
    def alter(folder, document):
        document["annotations"][0]["bbox"][2] = 0

    service.copy_dataset_altered("broken", alter)
    dataset = send(service, zip_folder(service.settings.datasets_root / "broken")).json()
    assert (dataset["status"], dataset["issues"][0]["code"]) == ("has_problems", "box_empty")


def test_a_name_in_use_is_rejected_before_the_body_is_read(service, archive, monkeypatch):
    send(service, archive)
    monkeypatch.setattr(upload_body.Request, "stream", None)
    service.assert_problem(send(service, archive), 409, "name_taken")


@pytest.mark.parametrize("query", [{"name": "../x"}, {"name": ""}, {"val_fraction": "0.9"}, {"val_fraction": "nan"}])
def test_an_invalid_query_is_rejected_before_the_body_is_read(service, archive, query, monkeypatch):
    monkeypatch.setattr(upload_body.Request, "stream", None)
    service.assert_problem(send(service, archive, **query), 422, "invalid_request")


def test_a_rejected_archive_leaves_no_files(service):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("train/a.jpg", b"")
        archive.writestr("../../evil.json", b"{}")
    service.assert_problem(send(service, stream.getvalue()), 422, "archive_refused")
    service.assert_problem(send(service, b"hello"), 422, "archive_unreadable")
    service.assert_problem(send(service, b""), 400, "body_missing")
    assert files_of(service.settings) == set()
    assert service.get("/datasets")["data"] == []
    assert not list(service.settings.data.rglob("evil.json"))


def test_a_body_with_another_hash_than_announced_is_rejected(service, archive):
    right, wrong = hashlib.sha256(archive).hexdigest(), "0" * 64
    service.assert_problem(send(service, archive, headers=ZIP | {"X-Content-SHA256": wrong}), 422, "hash_differs")
    assert files_of(service.settings) == set()
    assert send(service, archive, headers=ZIP | {"X-Content-SHA256": right}).status_code == 201


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", ""])
def test_other_media_types_are_rejected(service, archive, media_type):
    service.assert_problem(send(service, archive, headers={"Content-Type": media_type}), 415, "unsupported_media_type")


@pytest.mark.parametrize("announced", [True, False])
def test_an_upload_over_the_size_limit_is_rejected(settings, archive, announced, serve):
    small = settings.model_copy(update={"max_upload_bytes": 1000})
    with serve(create_app(small), small) as service:
        content = archive if announced else iter([archive[:600], archive[600:]])
        service.assert_problem(send(service, content), 413, "upload_too_large")
        assert files_of(small) == set()


def test_a_full_disk_is_507_and_leaves_no_files(service, archive, monkeypatch):
    open_file = Path.open

    def open_on_full_disk(path, mode="r", *arguments, **options):
        file = open_file(path, mode, *arguments, **options)
        return file if mode != "xb" else file.close() or open_file(Path("/dev/full"), "wb")

    monkeypatch.setattr(Path, "open", open_on_full_disk)
    service.assert_problem(send(service, archive), 507, "storage_full")
    assert files_of(service.settings) == set()


@pytest.mark.parametrize(
    ("output", "exit_code", "status", "error_code"),
    [
        (b'{"errno": 28}', 1, 507, "storage_full"),
        (b"", -9, 422, "archive_too_large"),
        (b'{"code": "archive_refused", "message": "No.", "hint": ""}', 1, 422, "archive_refused"),
    ],
)
def test_a_failed_conversion_leaves_no_files(
    service, archive, tmp_path, monkeypatch, output, exit_code, status, error_code
):
    script = tmp_path / "partial_conversion.py"
    script.write_text(PARTIAL_CONVERSION.format(output=output, code=exit_code))
    monkeypatch.setenv("FRS_DATABASE_URL", "postgresql://user:secret@host/frs")
    monkeypatch.setattr("store.artifacts.unpacking.COMMAND", (sys.executable, str(script)))
    service.assert_problem(send(service, archive), status, error_code)
    assert files_of(service.settings) == set()


PARTIAL_CONVERSION = """
import os, sys
from pathlib import Path
folder = Path(sys.argv[2]) / "archive"
folder.mkdir(parents=True)
(folder / "a.jpg").write_bytes(b"half")
assert {{name for name in os.environ if name.startswith("FRS_")}} <= {{"FRS_PARENT_PID"}}
os.write(1, {output!r})
if {code} < 0:
    os.kill(os.getpid(), -{code})
sys.exit({code})
"""


def test_concurrent_uploads_and_deletions_of_one_archive_do_not_interfere(service, archive):
    def upload_and_delete(number):
        for turn in range(3):
            dataset = send(service, archive, f"set {number} {turn}").json()
            assert (dataset["status"], service.get(f"/datasets/{dataset['id']}/check")["issues"]) == ("ready", [])
            assert service.client.delete(f"/datasets/{dataset['id']}").status_code == 204

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(upload_and_delete, range(6)))
    assert files_of(service.settings) == set()


def test_a_disk_without_space_is_reported_before_the_body_is_read(service, archive, monkeypatch):
    monkeypatch.setattr(upload_body.Request, "stream", None)
    monkeypatch.setattr(free_space.shutil, "disk_usage", lambda _: DiskUsage(10, 0, 10))
    service.assert_problem(send(service, archive), 507, "storage_full")


def free_bytes_in_turn(monkeypatch, settings, *numbers):
    """Let so many bytes above the floor be free at each look; the last number repeats."""
    floor, turns = settings.min_free_mb << 20, [*numbers]

    def disk_usage(_):
        return DiskUsage(1 << 40, 0, floor + (turns.pop(0) if len(turns) > 1 else turns[0]))

    monkeypatch.setattr(free_space.shutil, "disk_usage", disk_usage)


def test_an_upload_stops_before_the_disk_is_below_the_floor_and_leaves_no_files(service, archive, monkeypatch):
    size = len(archive)
    free_bytes_in_turn(monkeypatch, service.settings, size, size, 10)
    service.assert_problem(send(service, archive), 507, "storage_full")
    assert files_of(service.settings) == set()


def test_an_archive_that_does_not_fit_when_unpacked_is_refused_and_leaves_no_files(service, archive, monkeypatch):
    size = len(archive)
    free_bytes_in_turn(monkeypatch, service.settings, size, size, size, 10)
    service.assert_problem(send(service, archive), 507, "storage_full")
    assert files_of(service.settings) == set()


def test_an_archive_is_accepted_that_leaves_the_floor_free(service, archive, monkeypatch):
    free_bytes_in_turn(monkeypatch, service.settings, 10 << 20)
    assert send(service, archive).status_code == 201


async def upload_in_chunks(service, app, chunks, at_end):
    """Upload the chunks, then await `at_end()`; return the status of the response."""
    messages_sent = []
    chunks = iter(chunks)

    async def receive():
        chunk = next(chunks, None)
        if chunk is None:
            await at_end()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send_(message):
        messages_sent.append(message)

    key = service.client.headers["Authorization"].encode()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/datasets/upload",
        "query_string": b"name=mine",
        "headers": [(b"authorization", key), (b"content-type", b"application/zip")],
    }
    await app(scope, receive, send_)
    return messages_sent[0]["status"]


@pytest.mark.parametrize(("at_end", "status"), [(anyio.lowlevel.checkpoint, 400), (anyio.sleep_forever, 408)])
def test_a_client_that_disconnects_or_stalls_leaves_no_files(service, app, archive, at_end, status, monkeypatch):
    monkeypatch.setattr(upload_body, "IDLE_SECONDS", 0.2)
    assert anyio.run(upload_in_chunks, service, app, [archive[:500]], at_end) == status
    assert files_of(service.settings) == set()


def test_the_file_of_a_slow_upload_changes_so_that_no_other_process_removes_it(service, app, monkeypatch):
    monkeypatch.setattr(upload_body, "WRITE_SECONDS", 0.0)
    sizes = []

    async def at_end():
        sizes.extend(path.stat().st_size for path in service.settings.uploads_root.glob(".*.part"))

    anyio.run(upload_in_chunks, service, app, [b"a", b"b", b"c"], at_end)
    assert sizes == [3]


def test_partial_files_of_a_killed_process_are_removed_after_40_minutes_without_a_change(settings):
    root = settings.uploads_root
    for name in (".old.part", ".growing.part", "kept"):
        (root / name).mkdir(parents=True)
        (root / name / "a.jpg").touch()
    local_files.remove_stale(root)
    assert (root / ".old.part").exists()
    earlier = (root / "kept").stat().st_mtime - local_files.STALE_SECONDS - 1
    for path in (root / ".old.part", root / ".old.part" / "a.jpg", root / ".growing.part", root / "kept"):
        os.utime(path, (earlier, earlier))
    local_files.remove_stale(root)
    assert sorted(path.name for path in root.iterdir()) == [".growing.part", "kept"]


def test_all_other_routes_keep_their_body_limit(service):
    paths = service.get("/openapi.json")["paths"]
    routes = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert routes >= STREAMED
    for method, path in sorted(routes - STREAMED):
        if method in ("POST", "PUT", "PATCH", "DELETE"):
            response = service.client.request(method, path, content=b"x" * (2 << 20), headers=ZIP)
            service.assert_problem(response, 413, "body_too_large")
    for path in ("/datasets/upload/", "//datasets/upload", "/datasets/uploads", "/datasets/%75pload/x"):
        response = service.client.post(path, content=b"x" * (2 << 20), headers=ZIP)
        service.assert_problem(response, 413, "body_too_large")


def test_the_openapi_document_declares_a_binary_body(service):
    paths = service.get("/openapi.json")["paths"]
    body = paths["/datasets/upload"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/zip", "application/x-tar", "application/gzip"}
    assert json.dumps(body["application/zip"]["schema"]) == '{"type": "string", "format": "binary"}'
