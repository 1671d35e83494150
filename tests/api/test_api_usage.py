"""Disk usage: GET /usage, the limit of an owner, the metrics."""

import pytest
from fastapi.testclient import TestClient
from test_api_uploads import ZIP, files_of, zip_folder

from api.monitoring import collector
from frs.events import ErrorInfo
from store.artifacts.uploads import refuse_import
from store.db import api_keys, usage
from store.db.tables import Artifact, Checkpoint, Detector

TRAIN = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}}
GFL = '{"architecture": "gfl"}'


def add_files(service, job_id, size):
    """Store a checkpoint and a deliverable of `size` bytes for the job."""
    digest = {"key": f"{job_id}/file", "sha256": "0" * 64, "bytes": size}
    checkpoint = Checkpoint(job_id=job_id, attempt=1, kind="student", labels=[], step=1, epoch=1, metrics={}, **digest)
    service.transact(lambda session: session.add_all([checkpoint, Artifact(job_id=job_id, name="report", **digest)]))


def add_detector(service, owner, size, **columns):
    columns |= {"weights_key": f"uploads/{owner}.bin", "sha256": "0" * 64, "description": {}, "bytes": size}
    service.transact(lambda session: session.add(Detector(name="uploaded", owner=owner, **columns)))


@pytest.fixture
def client_of(service, app):
    """A function that returns a client with a `submit` key of an owner, with these limits."""

    def make(owner, **limits):
        token = api_keys.new_token()
        service.transact(api_keys.add, owner, token, owner=owner, scopes=[api_keys.Scope.SUBMIT], **limits)
        return TestClient(app, headers={"Authorization": f"Bearer {token}"})

    return make


def usage_of(answer, owner):
    return next(row for row in answer["owners"] if row["owner"] == owner)


def test_usage_is_listed_by_owner_and_kind_largest_first(service, shapes):
    add_files(service, service.submit()["id"], 1000)
    add_detector(service, "alice", 5000)
    answer = service.get("/usage")
    assert [(row["owner"], row["total"]) for row in answer["owners"]] == [("alice", 5000), ("admin", 2000)]
    assert usage_of(answer, "admin")["checkpoints"] == usage_of(answer, "admin")["artifacts"] == 1000
    assert usage_of(answer, "alice")["limit"] == service.settings.max_disk_bytes


def test_the_disks_are_listed_with_the_floor_below_which_jobs_wait(service):
    disks = service.get("/usage")["disks"]
    assert {disk["name"] for disk in disks} >= {"uploads", "artifacts"}
    assert all(0 < disk["free"] < disk["total"] and disk["floor"] == 200 << 20 for disk in disks)


def test_an_owner_sees_only_its_own_usage(service, shapes, client_of):
    add_detector(service, "bob", 5000)
    alice = client_of("alice")
    assert [row["owner"] for row in alice.get("/usage").json()["owners"]] == ["alice"]


def test_a_job_of_an_owner_over_its_limit_is_refused_and_the_message_names_the_sizes(service, shapes, client_of):
    alice = client_of("alice", max_disk_bytes=4000)
    assert alice.post("/datasets", json={"name": "shapes"}).status_code == 201
    add_detector(service, "alice", 3_000_000_000)
    problem = service.assert_problem(alice.post("/jobs", json=TRAIN), 403, "disk_quota_exceeded")
    assert "alice has stored 3.00 GB" in problem["detail"] and "frs usage" in problem["hint"]


def test_sizes_below_a_gigabyte_are_named_in_megabytes(service, shapes, client_of):
    alice = client_of("alice", max_disk_bytes=4_000_000)
    alice.post("/datasets", json={"name": "shapes"})
    add_detector(service, "alice", 5_300_000)
    problem = service.assert_problem(alice.post("/jobs", json=TRAIN), 403, "disk_quota_exceeded")
    assert problem["detail"] == "alice has stored 5.30 MB; the limit is 4.00 MB."


def test_a_corrected_data_set_may_take_the_place_of_the_one_with_issues(service, client_of):
    def break_box(_, document):
        document["annotations"][0]["bbox"][2] = 0

    service.copy_dataset_altered("broken", break_box)
    broken, corrected = (zip_folder(service.settings.datasets_root / name) for name in ("broken", "shapes"))

    def upload(client, name, content):
        return client.post("/datasets/upload", params={"name": name}, content=content, headers=ZIP)

    assert upload(client_of("alice"), "mine", broken).json()["status"] == "has_problems"
    limit = usage_of(service.get("/usage"), "alice")["total"] + len(corrected) // 2
    alice = client_of("alice", max_disk_bytes=limit)
    for content in (corrected, iter([corrected])):  # with and without a length
        service.assert_problem(upload(alice, "another", content), 403, "disk_quota_exceeded")
    response = upload(alice, "mine", corrected)
    assert response.status_code == 201 and response.json()["status"] == "ready", response.text
    assert usage_of(service.get("/usage"), "alice")["total"] <= limit


def test_an_upload_over_the_limit_is_refused_before_its_body_is_read(service, monkeypatch, client_of):
    alice = client_of("alice", max_disk_bytes=4000)
    query = {"name": "t", "description": GFL}
    headers = {"Content-Type": "application/octet-stream"}
    response = alice.post("/detectors/upload", params=query, content=b"x" * 5000, headers=headers)
    service.assert_problem(response, 403, "disk_quota_exceeded")


def test_an_upload_without_a_length_is_refused_after_it_and_leaves_no_file(service, client_of):
    alice = client_of("alice", max_disk_bytes=4000)
    query, headers = (
        {"name": "t", "description": '{"architecture": "gfl"}'},
        {"Content-Type": "application/octet-stream"},
    )
    response = alice.post("/detectors/upload", params=query, content=iter([b"x" * 5000]), headers=headers)
    service.assert_problem(response, 403, "disk_quota_exceeded")
    assert not [path for path in service.settings.uploads_root.iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize("path", ["/datasets/upload", "/detectors/upload"])
def test_an_upload_is_refused_if_another_has_used_up_the_disk_space_meanwhile(
    service, shapes, client_of, monkeypatch, path
):
    content = zip_folder(service.settings.datasets_root / "shapes") if path.startswith("/datasets") else b"x" * 20_000
    limit = 3 * len(content)  # a data set counts with its archive and its unpacked files, which are about as large
    alice, put = client_of("alice", max_disk_bytes=limit), service.artifacts.put

    def upload(client):
        query, media_type = {"name": "mine", "description": GFL}, "application/octet-stream"
        if path.startswith("/datasets"):
            query, media_type = {"name": "mine"}, "application/zip"
        return client.post(path, params=query, content=content, headers={"Content-Type": media_type})

    def put_after_another_upload(*arguments):
        add_detector(service, "alice", limit - 10)
        put(*arguments)

    monkeypatch.setattr(service.artifacts, "put", put_after_another_upload)
    service.assert_problem(upload(alice), 403, "disk_quota_exceeded")
    assert files_of(service.settings) == set()
    assert usage_of(service.get("/usage"), "alice")["total"] == limit - 10


def test_uploaded_weights_count_for_their_owner(service, client_of):
    alice = client_of("alice")
    query, headers = (
        {"name": "t", "description": '{"architecture": "gfl"}'},
        {"Content-Type": "application/octet-stream"},
    )
    assert alice.post("/detectors/upload", params=query, content=b"x" * 5000, headers=headers).status_code == 201
    assert usage_of(service.get("/usage"), "alice")["detectors"] == 5000


def test_refused_weights_count_no_longer(service, client_of):
    add_detector(service, "alice", 5000, id="det_1", status="importing")
    assert usage_of(service.get("/usage"), "alice")["detectors"] == 5000
    service.transact(refuse_import, "det_1", ErrorInfo(code="weights_unreadable", message="It holds code."))
    assert usage_of(client_of("alice").get("/usage").json(), "alice")["total"] == 0


def test_a_registered_student_counts_as_a_detector_once_its_job_is_deleted(service, shapes):
    job_id = service.succeeded_job()
    assert service.client.post("/detectors", json={"name": "small", "job": job_id}).status_code == 201
    before = usage_of(service.get("/usage"), "admin")
    assert (before["checkpoints"], before["detectors"]) == (10, 0)
    service.client.delete(f"/jobs/{job_id}")
    after = usage_of(service.get("/usage"), "admin")
    assert (after["checkpoints"], after["detectors"]) == (0, 10)
    with service.database.read() as session:
        assert usage.total_bytes(session, "admin") == 10


def test_an_admin_sees_the_limits_of_the_keys_of_other_owners(service, client_of):
    for owner, limit in (("alice", 7000), ("alice", 6000), ("bob", 10**12), ("bob", None), ("carol", None)):
        client_of(owner, max_disk_bytes=limit)
    for owner in ("alice", "bob", "carol", "dora"):
        add_detector(service, owner, 5000)
    service.transact(api_keys.add, "old", api_keys.new_token(), owner="alice", max_disk_bytes=9000, expires_at=1.0)
    default = service.settings.max_disk_bytes
    limits = {row["owner"]: row["limit"] for row in service.get("/usage")["owners"]}
    assert limits == {"alice": 7000, "bob": 10**12, "carol": default, "dora": default, "admin": default}


def test_owners_beyond_the_largest_are_reported_together(service, monkeypatch):
    monkeypatch.setattr(collector, "MAX_OWNERS", 2)
    for number in range(1, 5):
        add_detector(service, f"owner{number}", 1000 * number)
    text = service.client.get("/metrics").text
    stored = [line for line in text.splitlines() if line.startswith("frs_stored_bytes{") and 'kind="detectors"' in line]
    assert any('owner="other"' in line and line.endswith(" 3000.0") for line in stored)
    assert len(stored) == 3


@pytest.mark.parametrize("metric", ["frs_disk_free_bytes", "frs_disk_size_bytes", "frs_disk_floor_bytes"])
def test_the_disks_are_measured(service, metric):
    assert f'{metric}{{disk="artifacts"}}' in service.client.get("/metrics").text


def test_an_owner_without_files_uses_nothing(service):
    with service.database.read() as session:
        assert usage.total_bytes(session, "nobody") == 0
