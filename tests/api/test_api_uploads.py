import fcntl
import gzip
import hashlib
import io
import json
import shutil
import sys
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from api import upload_body
from api.app import create_app
from api.http.json_body import STREAMED
from store.artifacts import local_files
from store.settings import Settings

ZIP = {"Content-Type": "application/zip"}


def zipped(folder: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
    return stream.getvalue()


def taped(folder: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(folder, folder.name)
    return stream.getvalue()


@pytest.fixture
def archive(service):
    return zipped(service.settings.datasets_root / "shapes")


def send(service, content, name="mine", headers=ZIP, **query):
    return service.client.post("/datasets/upload", params={"name": name, **query}, content=content, headers=headers)


def files_of(settings: Settings) -> set[str]:
    """What uploads have left on the disk."""
    unpacked = {path.name for path in settings.uploads_root.iterdir() if path.name not in (".lock", ".released")}
    kept = settings.artifacts_root / "uploads"
    return unpacked | ({path.name for path in kept.iterdir()} if kept.is_dir() else set())


def test_an_archive_becomes_a_checked_data_set(service, archive, shapes):
    response = send(service, archive)
    dataset = response.json()
    assert response.status_code == 201, dataset
    assert response.headers["location"] == f"/datasets/{dataset['id']}"
    assert (dataset["status"], dataset["uploaded"], dataset["classes"]) == ("ready", True, shapes["classes"])
    assert dataset["counts"] == shapes["counts"]
    assert service.get("/datasets/mine") == dataset
    digest = hashlib.sha256(archive).hexdigest()
    assert files_of(service.settings) == {digest, f"{digest}.zip"}
    assert service.artifacts.path(f"uploads/{digest}.zip").read_bytes() == archive


@pytest.mark.parametrize("again", [False, True])
def test_nothing_is_asked_of_the_artifacts_while_others_are_held_up(service, archive, monkeypatch, again):
    """Storage may be slow, or take half a minute to fail."""
    asked = []

    def while_nobody_holds_the_lock(name, real):
        def use(*arguments):
            with (service.settings.uploads_root / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where somebody holds it
            asked.append(name)
            return real(*arguments)

        return use

    if again:
        send(service, archive, "before")
    for name in ("put", "open"):
        monkeypatch.setattr(
            service.artifacts, name, while_nobody_holds_the_lock(name, getattr(service.artifacts, name))
        )
    assert send(service, archive).status_code == 201
    assert asked == (["open"] if again else ["put"])


@pytest.mark.parametrize("others", [1, 2])
def test_an_archive_that_another_request_deletes_once_it_is_put_is_put_again(service, archive, monkeypatch, others):
    """Others come and go with the same archive, between the put and the row of this one."""
    real, ours = service.artifacts.put, threading.Event()

    def put(*arguments):
        real(*arguments)
        if not ours.is_set():
            ours.set()
            for number in range(others):
                send(service, archive, f"other {number}")
            for number in range(others):
                assert service.client.delete(f"/datasets/other {number}").status_code == 204

    monkeypatch.setattr(service.artifacts, "put", put)
    assert send(service, archive).status_code == 201
    digest = hashlib.sha256(archive).hexdigest()
    assert files_of(service.settings) == {digest, f"{digest}.zip"}


def test_an_archive_that_is_gone_from_the_artifacts_is_put_there_again(service, archive):
    send(service, archive)
    kept = service.artifacts.path(f"uploads/{hashlib.sha256(archive).hexdigest()}.zip")
    kept.unlink()
    assert send(service, archive, name="again").status_code == 201
    assert kept.read_bytes() == archive


@pytest.mark.parametrize(
    ("pack", "media_type"),
    [(taped, "application/x-tar"), (lambda folder: gzip.compress(taped(folder)), "application/gzip")],
)
def test_tar_files_are_taken_too(service, pack, media_type):
    content = pack(service.settings.datasets_root / "shapes")
    response = send(service, content, headers={"Content-Type": media_type})
    assert response.json()["status"] == "ready"


def test_a_job_can_use_it(service, archive):
    send(service, archive)
    assert service.submit(dataset="mine")["status"] == "queued"
    service.refused(service.client.delete("/datasets/mine"), 409, "dataset_in_use")
    assert len(files_of(service.settings)) == 2


def test_the_same_archive_twice_is_kept_once_until_the_last_is_deleted(service, archive):
    for name in ("one", "two"):
        assert send(service, archive, name).status_code == 201
    assert len(files_of(service.settings)) == 2
    assert service.client.delete("/datasets/one").status_code == 204
    assert len(files_of(service.settings)) == 2
    assert service.client.delete("/datasets/two").status_code == 204
    assert files_of(service.settings) == set()


def test_a_share_can_be_set_aside_for_validation(service, tmp_path):
    folder = shutil.copytree(service.settings.datasets_root / "shapes", tmp_path / "half")
    shutil.rmtree(folder / "val")
    problem = service.refused(send(service, zipped(folder)), 422, "no_validation_split")
    assert "val_fraction" in problem["hint"]
    dataset = send(service, zipped(folder), val_fraction=0.33).json()
    assert [dataset["counts"][half]["images"] for half in ("train", "val")] == [4, 2]
    assert dataset["status"] == "ready"


def test_problems_of_its_boxes_are_told_as_for_other_sets(service):
    def alter(folder, document):
        document["annotations"][0]["bbox"][2] = 0

    service.altered_copy("broken", alter)
    dataset = send(service, zipped(service.settings.datasets_root / "broken")).json()
    assert (dataset["status"], dataset["issues"][0]["code"]) == ("has_problems", "box_empty")


def test_a_name_is_taken_once_and_that_is_said_before_the_body_is_read(service, archive, monkeypatch):
    send(service, archive)
    monkeypatch.setattr(upload_body, "_write", None)
    service.refused(send(service, archive), 409, "name_taken")


@pytest.mark.parametrize("query", [{"name": "../x"}, {"name": ""}, {"val_fraction": "0.9"}, {"val_fraction": "nan"}])
def test_a_wrong_query_is_told_before_the_body_is_read(service, archive, query, monkeypatch):
    monkeypatch.setattr(upload_body, "_write", None)
    service.refused(send(service, archive, **query), 422, "invalid_request")


def test_an_archive_that_is_refused_leaves_nothing(service):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("train/a.jpg", b"")
        archive.writestr("../../evil.json", b"{}")
    service.refused(send(service, stream.getvalue()), 422, "archive_refused")
    service.refused(send(service, b"hello"), 422, "archive_unreadable")
    service.refused(send(service, b""), 400, "body_missing")
    assert files_of(service.settings) == set()
    assert service.get("/datasets")["data"] == []
    assert not list(service.settings.data.rglob("evil.json"))


def test_the_announced_hash_has_to_be_the_bodys(service, archive):
    right, wrong = hashlib.sha256(archive).hexdigest(), "0" * 64
    service.refused(send(service, archive, headers=ZIP | {"X-Content-SHA256": wrong}), 422, "hash_differs")
    assert files_of(service.settings) == set()
    assert send(service, archive, headers=ZIP | {"X-Content-SHA256": right}).status_code == 201


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", ""])
def test_other_types_are_not_taken(service, archive, media_type):
    service.refused(send(service, archive, headers={"Content-Type": media_type}), 415, "unsupported_media_type")


@pytest.mark.parametrize("announced", [True, False])
def test_more_than_the_cap_is_refused(settings, archive, announced, serve):
    small = settings.model_copy(update={"max_upload_bytes": 1000})
    with serve(create_app(small), small) as service:
        content = archive if announced else iter([archive[:600], archive[600:]])
        service.refused(send(service, content), 413, "upload_too_large")
        assert files_of(small) == set()


def test_a_full_disk_is_507_and_leaves_nothing(service, archive, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(upload_body, "_keep", full)
    service.refused(send(service, archive), 507, "storage_full")
    assert files_of(service.settings) == set()


@pytest.mark.parametrize(
    ("output", "code", "status", "told"),
    [
        (b'{"errno": 28}', 1, 507, "storage_full"),
        (b"", -9, 422, "archive_too_large"),
        (b'{"code": "archive_refused", "message": "No.", "hint": ""}', 1, 422, "archive_refused"),
    ],
)
def test_what_ends_the_unpacking_is_(service, archive, tmp_path, monkeypatch, output, code, status, told):
    half_done = tmp_path / "half_done.py"
    half_done.write_text(HALF_DONE.format(output=output, code=code))
    monkeypatch.setenv("FRS_DATABASE_URL", "postgresql://user:secret@host/frs")
    monkeypatch.setattr("store.artifacts.unpacking.COMMAND", (sys.executable, str(half_done)))
    service.refused(send(service, archive), status, told)
    assert files_of(service.settings) == set()


HALF_DONE = """
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


def test_many_at_once_share_one_folder_and_no_delete_takes_it_from_under_another(service, archive):
    def come_and_go(number):
        for turn in range(3):
            dataset = send(service, archive, f"set {number} {turn}").json()
            assert (dataset["status"], service.get(f"/datasets/{dataset['id']}/check")["issues"]) == ("ready", [])
            assert service.client.delete(f"/datasets/{dataset['id']}").status_code == 204

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(come_and_go, range(6)))
    assert files_of(service.settings) == set()


def test_a_disk_that_cannot_hold_it_is_told_before_the_body_is_read(service, archive, monkeypatch):
    monkeypatch.setattr(upload_body, "_write", None)
    monkeypatch.setattr(upload_body.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 0, 10))
    service.refused(send(service, archive), 507, "storage_full")


@pytest.mark.parametrize("ending", ["disconnect", "silence"])
def test_a_client_that_goes_or_falls_silent_leaves_nothing(service, app, archive, ending, monkeypatch):
    monkeypatch.setattr(upload_body, "IDLE_SECONDS", 0.2)
    sent = []

    async def upload():
        messages = iter([{"type": "http.request", "body": archive[:500], "more_body": True}])

        async def receive():
            message = next(messages, None)
            if message is None and ending == "silence":
                await anyio.sleep_forever()
            return message or {"type": "http.disconnect"}

        async def send_(message):
            sent.append(message)

        key = service.client.headers["Authorization"].encode()
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/datasets/upload",
            "query_string": b"name=mine",
            "headers": [(b"authorization", key), (b"content-type", b"application/zip")],
        }
        await app(scope, receive, send_)

    anyio.run(upload)
    assert sent[0]["status"] == (408 if ending == "silence" else 400)
    assert files_of(service.settings) == set()


def test_leftovers_of_a_killed_process_go_after_a_day(settings, monkeypatch):
    root = settings.uploads_root
    (root / ".old.part").mkdir(parents=True)
    (root / ".old.part" / "a.jpg").touch()
    (root / "kept").mkdir()
    local_files.remove_stale(root)
    assert (root / ".old.part").exists()
    monkeypatch.setattr(local_files, "_STALE_SECONDS", -1)
    local_files.remove_stale(root)
    assert [path.name for path in root.iterdir()] == ["kept"]


def test_every_other_route_keeps_its_cap(service):
    paths = service.get("/openapi.json")["paths"]
    routes = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert routes >= STREAMED
    for method, path in sorted(routes - STREAMED):
        if method in ("POST", "PUT", "PATCH", "DELETE"):
            response = service.client.request(method, path, content=b"x" * (2 << 20), headers=ZIP)
            service.refused(response, 413, "body_too_large")
    for path in ("/datasets/upload/", "//datasets/upload", "/datasets/uploads", "/datasets/%75pload/x"):
        response = service.client.post(path, content=b"x" * (2 << 20), headers=ZIP)
        service.refused(response, 413, "body_too_large")


def test_the_document_says_that_the_body_is_a_file(service):
    paths = service.get("/openapi.json")["paths"]
    body = paths["/datasets/upload"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/zip", "application/x-tar", "application/gzip"}
    assert json.dumps(body["application/zip"]["schema"]) == '{"type": "string", "format": "binary"}'
