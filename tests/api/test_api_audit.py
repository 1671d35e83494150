"""The audit trail: every change that a user requests is listed under GET /audit with its key, address and request."""

import zipfile
from datetime import datetime, timedelta

import pytest

from store.states import JobStatus

DETECTOR = {"name": "teacher", "description": {"architecture": "gfl"}, "weights": "teacher.pth"}


@pytest.fixture
def key(service):
    """Create a key and return its headers."""

    def create(owner, scope="submit"):
        body = {"name": f"key of {owner}", "owner": owner, "scopes": [scope]}
        return {"Authorization": f"Bearer {service.client.post('/api-keys', json=body).json()['token']}"}

    return create


@pytest.fixture
def entries(service):
    """List the entries, oldest first."""
    return lambda **query: service.get("/audit", params=query)["data"][::-1]


def changes(entries):
    return [(entry["action"], entry["target"]) for entry in entries]


def test_a_change_is_listed_with_its_owner_key_address_and_request(service, shapes, key, entries):
    alice = key("alice", "admin")
    job_id = service.submit()["id"]
    response = service.client.post(f"/jobs/{job_id}/cancel", headers=alice)
    [entry] = entries(action="job.cancel")
    assert (entry["target"], entry["owner"], entry["address"]) == (job_id, "alice", "testclient")
    assert entry["request_id"] == response.headers["X-Request-Id"]
    assert service.get(f"/api-keys/{entry['key_id']}")["owner"] == "alice"


def test_every_action_on_a_job_adds_an_entry(service, shapes, entries):
    job_id = service.submit()["id"]
    service.client.patch(f"/jobs/{job_id}", json={"priority": 3})
    for action in ("pause", "resume", "cancel", "retry", "cancel"):
        assert service.client.post(f"/jobs/{job_id}/{action}").status_code == 202
    service.client.delete(f"/jobs/{job_id}")
    names = ["submit", "edit", "pause", "resume", "cancel", "retry", "cancel", "delete"]
    assert changes(entries(target=job_id)) == [(f"job.{name}", job_id) for name in names]
    assert entries(action="job.edit")[0]["details"] == {"priority": 3}


def test_a_run_group_adds_an_entry_for_each_of_its_jobs(service, shapes, entries):
    service.client.post("/detectors", json=DETECTOR)
    job = service.submit(kind="distill", teacher={"detector": "teacher"}, baseline=True)
    ids = {job["id"], *job["baseline_job_ids"], job["comparison_job_id"]}
    service.client.post(f"/jobs/{job['id']}/cancel")
    service.client.post(f"/jobs/{job['id']}/resume")
    for action in ("job.submit", "job.cancel", "job.resume"):
        assert sorted(entry["target"] for entry in entries(action=action)) == sorted(ids)
    for id in ids:
        assert service.get(f"/jobs/{id}/events")["data"][-1]["data"]["by"] == "admin"


def test_data_sets_detectors_and_keys_add_entries(service, shapes, key, entries, tmp_path):
    service.client.post("/detectors", json=DETECTOR)
    service.client.delete("/detectors/teacher")
    archive = tmp_path / "sent.zip"
    with zipfile.ZipFile(archive, "w") as content:
        for file in (service.settings.datasets_root / "shapes").rglob("*.*"):
            content.write(file, file.relative_to(service.settings.datasets_root))
    upload = {"content": archive.read_bytes(), "headers": {"Content-Type": "application/zip"}}
    assert service.client.post("/datasets/upload?name=sent", **upload).status_code == 201
    service.client.delete("/datasets/sent")
    weights = {"content": b"weights", "headers": {"Content-Type": "application/octet-stream"}}
    query = {"name": "mine", "description": '{"architecture": "gfl"}'}
    assert service.client.post("/detectors/upload", params=query, **weights).status_code == 201
    key("alice")
    key_id = service.get("/api-keys")["data"][0]["id"]
    for _ in range(2):
        service.client.delete(f"/api-keys/{key_id}")
    assert [entry["action"] for entry in entries()] == [
        "key.create",  # the first key, by `python -m store init`
        "dataset.register",
        "detector.register",
        "detector.delete",
        "dataset.upload",
        "dataset.delete",
        "detector.upload",
        "key.create",
        "key.revoke",
    ]


def test_a_refused_or_repeated_change_adds_no_entry(service, shapes, entries):
    job_id = service.submit()["id"]
    before = entries()
    service.assert_problem(service.client.post(f"/jobs/{job_id}/resume"), 409, "action_not_allowed")
    service.assert_problem(service.client.post("/datasets", json={"name": "shapes"}), 409, "name_taken")
    assert service.client.patch(f"/jobs/{job_id}", json={}).status_code == 200
    assert entries() == before


def test_no_entry_contains_a_token(service, shapes, key, entries):
    token = key("alice")["Authorization"].removeprefix("Bearer ")
    assert token not in str(entries())
    first, alice = entries(action="key.create")
    assert (first["owner"], first["key_id"], first["details"]["owner"]) == ("(setup)", None, "admin")
    assert alice["details"]["owner"] == "alice"


def test_entries_are_filtered_and_paged_newest_first(service, shapes, key, entries):
    alice = key("alice")
    service.client.post("/detectors", json={**DETECTOR, "name": "hers"}, headers=alice)
    assert [entry["action"] for entry in entries(owner="alice")] == ["detector.register"]
    first = service.get("/audit", params={"limit": 2})
    rest = service.get("/audit", params={"limit": 2, "cursor": first["next_cursor"]})
    assert first["data"] + rest["data"] == entries()[::-1]
    at = datetime.fromisoformat(first["data"][0]["at"])
    earlier, later = ((at + timedelta(hours=hours)).isoformat() for hours in (-1, 1))
    assert entries(since=earlier, until=later) == entries()
    assert entries(since=later) == entries(until=earlier) == []


def test_only_admins_read_the_audit_trail(service, key):
    response = service.client.get("/audit", headers=key("alice"))
    service.assert_problem(response, 403, "scope_missing")


@pytest.mark.parametrize("action", ["cancel", "pause", "stop"])
def test_a_running_job_shows_who_requested_an_action(service, shapes, key, action):
    lease = service.claim(service.submit()["id"])
    assert service.get(f"/jobs/{lease.job_id}")["requested_action"] is None
    service.client.post(f"/jobs/{lease.job_id}/{action}", headers=key("alice", "admin"))
    service.client.patch(f"/jobs/{lease.job_id}", json={"name": "renamed since"})
    request = service.get(f"/jobs/{lease.job_id}")["requested_action"]
    assert (request["action"], request["by"]) == (action, "alice")


@pytest.mark.parametrize("action", ["cancel", "pause"])
def test_a_queued_job_shows_who_cancelled_or_paused_it_until_it_is_resumed(service, shapes, key, action):
    job_id = service.submit()["id"]
    service.client.post(f"/jobs/{job_id}/{action}", headers=key("alice", "admin"))
    request = service.get(f"/jobs/{job_id}")["requested_action"]
    assert (request["action"], request["by"]) == (action, "alice")
    service.client.post(f"/jobs/{job_id}/resume")
    assert service.get(f"/jobs/{job_id}")["requested_action"] is None


def test_a_job_lists_its_attempts_with_their_workers(service, shapes):
    lease = service.claim(service.submit()["id"])
    service.finish(lease, JobStatus.SUCCEEDED)
    [attempt] = service.get(f"/jobs/{lease.job_id}")["attempts"]
    assert (attempt["number"], attempt["worker"], attempt["end"]) == (1, "worker", "succeeded")


def test_the_first_event_of_a_job_has_the_id_of_its_request(service, shapes):
    response = service.client.post(
        "/jobs", json={"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}}
    )
    first = service.get(f"/jobs/{response.json()['id']}/events")["data"][0]
    assert first["data"]["request_id"] == response.headers["X-Request-Id"]
