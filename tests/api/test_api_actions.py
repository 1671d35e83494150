"""What is asked of a job after it was posted, in every state it can be in."""

from unittest.mock import Mock

import pytest
from sqlalchemy import select

from store.db import api_keys
from store.db.tables import Detector, Event
from store.errors import ArtifactsUnavailable, LeaseLost
from store.jobs import lifecycle
from store.jobs.lease import RequestedAction
from store.states import ALLOWED, Action, EndReason, JobStatus, allowed_actions

DISTILL = {
    "dataset": "shapes",
    "teacher": {"architecture": "gfl", "init": {"weights": "teacher.pth"}},
    "student": {"architecture": "gfl", "backbone": {"depth": 18}},
}
NOBODY = "job_00000000000000000000000000"


@pytest.fixture
def hinted(service, monkeypatch):
    """Ids that workers were told of."""
    ids = []
    monkeypatch.setattr(service.client.app.state.context.wakeups, "enqueue", ids.append)
    return ids


def act(service, action, job_id):
    if action == Action.DELETE:
        return service.client.delete(f"/jobs/{job_id}")
    return service.client.post(f"/jobs/{job_id}/{action}")


def brought_to(service, status):
    """A job in that state, as users and workers get it there."""
    job_id = service.submit()["id"]
    match status:
        case JobStatus.PAUSED:
            act(service, Action.PAUSE, job_id)
        case JobStatus.CANCELLED:
            act(service, Action.CANCEL, job_id)
        case JobStatus.RUNNING:
            service.claim(job_id)
        case JobStatus.SUCCEEDED:
            service.settle(service.claim(job_id))
        case JobStatus.FAILED:
            service.settle(service.claim(job_id), JobStatus.FAILED, end_reason=EndReason.DIVERGED)
    assert service.get(f"/jobs/{job_id}")["status"] == status
    return job_id


def failed(service, **changes):
    lease = service.claim(service.submit(**changes)["id"])
    service.settle(lease, JobStatus.FAILED, end_reason=EndReason.DIVERGED)
    return lease.job_id


def as_somebody(service, owner, *scopes):
    """Headers of a key of that owner."""
    token = api_keys.new_token()
    with service.database.write() as session:
        api_keys.add(session, owner, token, owner=owner, scopes=scopes)
        session.commit()
    return {"Authorization": f"Bearer {token}"}


AFTERWARDS = {
    (Action.CANCEL, JobStatus.QUEUED): "cancelled",
    (Action.CANCEL, JobStatus.PAUSED): "cancelled",
    (Action.CANCEL, JobStatus.RUNNING): "running",
    (Action.STOP, JobStatus.RUNNING): "running",
    (Action.PAUSE, JobStatus.QUEUED): "paused",
    (Action.PAUSE, JobStatus.RUNNING): "running",
}
"""The others bring a job back to the queue."""


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("status", list(JobStatus))
def test_every_action_is_taken_or_refused_as_the_table_of_states_says(service, shapes, action, status):
    job_id = brought_to(service, status)
    assert service.get(f"/jobs/{job_id}")["allowed_actions"] == allowed_actions(status)
    response = act(service, action, job_id)
    if status not in ALLOWED[action]:
        problem = service.refused(response, 409, "action_not_allowed")
        assert problem["allowed_actions"] == allowed_actions(status)
        assert service.get(f"/jobs/{job_id}")["status"] == status
    elif action == Action.DELETE:
        assert (response.status_code, response.content) == (204, b"")
        service.refused(service.client.get(f"/jobs/{job_id}"), 404, "job_not_found")
    else:
        assert response.status_code == 202
        assert response.json()["status"] == AFTERWARDS.get((action, status), "queued")
        assert response.json() == service.get(f"/jobs/{job_id}")


@pytest.mark.parametrize(
    ("action", "wish"),
    [
        (Action.STOP, RequestedAction.STOP),
        (Action.PAUSE, RequestedAction.PAUSE),
        (Action.CANCEL, RequestedAction.CANCEL),
    ],
)
def test_a_running_jobs_worker_hears_what_was_asked_however_often(service, shapes, action, wish):
    lease = service.claim(service.submit()["id"])
    assert [act(service, action, lease.job_id).status_code for _ in range(2)] == [202, 202]
    with service.database.write() as session:
        assert lifecycle.renew(session, lease, 60).wish == wish
    types = [event["type"] for event in service.get(f"/jobs/{lease.job_id}/events")["data"]]
    assert types == ["status", "status", f"{action}_requested"]


def test_workers_are_told_of_what_is_in_the_queue_again(service, shapes, hinted):
    paused, broken = brought_to(service, JobStatus.PAUSED), failed(service)
    hinted.clear()
    act(service, Action.RESUME, paused)
    act(service, Action.RETRY, broken)
    assert hinted == [paused, broken]


def test_a_refused_action_tells_no_worker(service, shapes, hinted):
    job_id = service.submit()["id"]
    hinted.clear()
    act(service, Action.RESUME, job_id)
    assert hinted == []


def test_pausing_a_parent_leaves_its_family_alone(service, shapes):
    parent = service.submit(DISTILL, baseline={"seeds": 2})
    act(service, Action.PAUSE, parent["id"])
    run_group = [*parent["baseline_job_ids"], *parent["seed_job_ids"], parent["comparison_job_id"]]
    assert {service.get(f"/jobs/{job_id}")["status"] for job_id in run_group} == {"queued"}
    comparison = service.get(f"/jobs/{parent['comparison_job_id']}")
    assert comparison["status_reason"]["code"] == "waiting_for_runs"


def test_resume_brings_back_what_failed_for_want_of_it(service, shapes):
    teacher = service.submit()["id"]
    student = service.submit(DISTILL, teacher={"job": teacher})["id"]
    act(service, Action.CANCEL, teacher)
    service._do(lifecycle.fail_dependents)
    assert service.get(f"/jobs/{student}")["end_reason"] == "dependency_failed"
    act(service, Action.RESUME, teacher)
    back = service.get(f"/jobs/{student}")
    assert (back["status"], back["error"], back["finished_at"]) == ("queued", None, None)


def checkpointed(service):
    """A job that has failed and left a student behind, and the student's file."""
    lease = service.claim(service.submit()["id"])
    checkpoint = service.checkpoint(lease)
    service.evaluate(lease, "student", 0.3)
    service.settle(lease, JobStatus.FAILED, end_reason=EndReason.DIVERGED)
    [file] = [path for path in service.artifacts.root.rglob("*") if path.is_file()]
    return lease.job_id, checkpoint, file


def test_retry_begins_from_scratch_and_resume_does_not(service, shapes):
    job_id, checkpoint, file = checkpointed(service)
    act(service, Action.RESUME, job_id)
    assert file.is_file()
    assert service.get(f"/jobs/{job_id}/evaluations")["data"]
    act(service, Action.CANCEL, job_id)
    job = act(service, Action.RETRY, job_id).json()
    assert (job["status"], job["attempt"], job["started_at"], job["progress"]) == ("queued", 1, None, None)
    assert service.get(f"/jobs/{job_id}/evaluations")["data"] == []
    assert service.client.get(f"/checkpoints/{checkpoint}").status_code == 404
    assert not file.exists()


def test_a_store_that_does_not_answer_is_asked_once_however_many_files_there_were(service, shapes, monkeypatch, caplog):
    """Each time may take half a minute."""
    lease = service.claim(service.submit()["id"])
    for name in ("a.json", "b.json", "c.json"):
        service.artifact(lease, name, name.encode())
    service.settle(lease)
    away = Mock(side_effect=ArtifactsUnavailable("s3://bucket answers 503"))
    monkeypatch.setattr(type(service.artifacts), "delete", away)
    assert service.client.delete(f"/jobs/{lease.job_id}").status_code == 204
    assert away.call_count == 1
    assert "3 files not deleted: s3://bucket answers 503" in caplog.text


def test_a_file_that_cannot_be_deleted_keeps_no_other(service, shapes, monkeypatch):
    lease = service.claim(service.submit()["id"])
    for name in ("a.json", "b.json", "c.json"):
        service.artifact(lease, name, name.encode())
    service.settle(lease)
    one = Mock(side_effect=[PermissionError(13, "Permission denied"), None, None])
    monkeypatch.setattr(type(service.artifacts), "delete", one)
    assert service.client.delete(f"/jobs/{lease.job_id}").status_code == 204
    assert one.call_count == 3


@pytest.mark.parametrize(("query", "stays"), [("", False), ("?artifacts=delete", False), ("?artifacts=keep", True)])
def test_delete_forgets_the_job_and_keeps_its_files_on_request(service, shapes, query, stays):
    job_id, checkpoint, file = checkpointed(service)
    assert service.client.delete(f"/jobs/{job_id}{query}").status_code == 204
    assert service.client.get(f"/checkpoints/{checkpoint}").status_code == 404
    assert file.exists() == stays
    with service.database.read() as session:
        assert session.scalars(select(Event).where(Event.job_id == job_id)).all() == []


def test_a_file_that_cannot_be_deleted_is_told_in_the_log_alone(service, shapes, monkeypatch, caplog):
    job_id, _, file = checkpointed(service)
    context = service.client.app.state.context

    def refuse(key):
        raise PermissionError(13, "Permission denied", key)

    monkeypatch.setattr(type(context.artifacts), "delete", lambda _, key: refuse(key))
    assert service.client.delete(f"/jobs/{job_id}").status_code == 204
    assert [record.message for record in caplog.records if "file not deleted" in record.message]
    assert file.exists()


def test_a_published_detectors_weights_outlive_its_job(service, shapes):
    job_id = service.trained()
    service.client.post("/detectors", json={"name": "mine", "job": job_id})
    assert service.client.delete(f"/jobs/{job_id}").status_code == 204
    assert service.get("/detectors/mine")["job_id"] is None
    with service.database.read() as session:
        assert service.artifacts.path(session.scalars(select(Detector.weights_key)).one()).is_file()


def test_a_job_that_another_needs_is_not_deleted(service, shapes):
    teacher = service.trained()
    student = service.submit(DISTILL, teacher={"job": teacher})["id"]
    problem = service.refused(service.client.delete(f"/jobs/{teacher}"), 409, "job_in_use")
    assert student in problem["detail"]
    act(service, Action.CANCEL, student)
    assert service.client.delete(f"/jobs/{teacher}").status_code == 204


def test_a_parent_is_deleted_with_its_family_once_all_have_ended(service, shapes):
    parent = service.submit(DISTILL, baseline=True)
    service.settle(service.claim(parent["id"]))
    run_group = [*parent["baseline_job_ids"], parent["comparison_job_id"]]
    for _ in run_group:
        problem = service.refused(service.client.delete(f"/jobs/{parent['id']}"), 409, "job_in_use")
        [named] = [job_id for job_id in run_group if job_id in problem["detail"]]
        act(service, Action.CANCEL, named)
    assert service.client.delete(f"/jobs/{parent['id']}").status_code == 204
    assert service.get("/jobs")["data"] == []


def test_name_tags_and_priority_are_changed_and_the_spec_is_not(service, shapes):
    job = service.submit(name="before", tags=["a"], priority=1)
    path = f"/jobs/{job['id']}"
    assert (job["tags"], job["priority"], job["owner"]) == (["a"], 1, "admin")
    changed = service.client.patch(path, json={"name": "after", "tags": ["b", "c"], "priority": -5})
    assert changed.status_code == 200
    assert [changed.json()[field] for field in ("name", "tags", "priority")] == ["after", ["b", "c"], -5]
    assert changed.json()["spec"] == job["spec"]
    assert [job["id"] for job in service.get("/jobs?tag=b")["data"]] == [job["id"]]
    assert service.client.patch(path, json={"tags": []}).json()["name"] == "after"
    assert service.client.patch(path, json={"name": None}).json()["name"] is None


def test_an_empty_change_changes_nothing_and_leaves_no_trace(service, shapes):
    job = service.submit(name="x", tags=["a"], priority=1)
    assert service.client.patch(f"/jobs/{job['id']}", json={}).json() == job
    assert len(service.get(f"/jobs/{job['id']}/events")["data"]) == 1


def test_a_higher_priority_goes_to_the_front(service, shapes):
    first, second = (service.submit()["id"] for _ in range(2))
    assert service.client.patch(f"/jobs/{second}", json={"priority": 1}).json()["queue_position"] == 1
    assert service.get(f"/jobs/{first}")["queue_position"] == 2


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"priority": 101}, "priority"),
        ({"priority": None}, "priority"),
        ({"tags": None}, "tags"),
        ({"tags": ["x"] * 33}, "tags"),
        ({"name": ""}, "name"),
        ({"status": "succeeded"}, "status"),
        ({"owner": "me"}, "owner"),
    ],
)
def test_a_change_that_cannot_be_is_refused_by_its_field(service, shapes, body, loc):
    job = service.submit()
    problem = service.refused(service.client.patch(f"/jobs/{job['id']}", json=body), 422, "invalid_request")
    assert problem["errors"][0]["loc"].startswith(loc)
    assert service.get(f"/jobs/{job['id']}") == job


def test_a_job_that_has_ended_still_takes_a_new_name(service, shapes):
    job_id = service.trained()
    assert service.client.patch(f"/jobs/{job_id}", json={"name": "the good one"}).json()["name"] == "the good one"


@pytest.mark.parametrize("action", [*Action, "change"])
def test_another_owners_job_is_not_there(service, shapes, action):
    job_id = service.submit()["id"]
    stranger = as_somebody(service, "stranger", api_keys.Scope.SUBMIT)
    method, path = {Action.DELETE: ("DELETE", ""), "change": ("PATCH", "")}.get(action, ("POST", f"/{action}"))
    for id in (job_id, NOBODY):
        response = service.client.request(
            method, f"/jobs/{id}{path}", headers=stranger, json={} if path == "" else None
        )
        service.refused(response, 404, "job_not_found")
    assert service.get(f"/jobs/{job_id}")["status"] == "queued"


@pytest.mark.parametrize("action", [*Action, "change"])
def test_a_key_that_may_only_look_changes_nothing(service, shapes, action):
    job_id = service.submit()["id"]
    reader = as_somebody(service, "admin", api_keys.Scope.READ)
    method, path = {Action.DELETE: ("DELETE", ""), "change": ("PATCH", "")}.get(action, ("POST", f"/{action}"))
    response = service.client.request(method, f"/jobs/{job_id}{path}", headers=reader, json={} if path == "" else None)
    service.refused(response, 403, "scope_missing")


def test_what_a_worker_still_writes_for_a_paused_job_is_refused(service, shapes):
    lease = service.claim(service.submit()["id"])
    act(service, Action.PAUSE, lease.job_id)
    service._do(lifecycle.requeue, lease, attempt_counts=False)
    assert service.get(f"/jobs/{lease.job_id}")["status"] == "paused"
    with pytest.raises(LeaseLost):
        service.evaluate(lease, "student", 0.5)


@pytest.mark.parametrize("action", [Action.RESUME, Action.RETRY])
def test_a_job_that_begins_again_counts_against_the_quota(service, shapes, action):
    broken = failed(service)
    headers = {"Authorization": f"Bearer {api_keys.new_token()}"}
    token = headers["Authorization"].removeprefix("Bearer ")
    service._do(api_keys.add, "two", token, max_active_jobs=2)
    paused, _ = (service.submit()["id"] for _ in range(2))
    act(service, Action.PAUSE, paused)
    refused = service.client.post(f"/jobs/{broken}/{action}", headers=headers)
    service.refused(refused, 429, "quota_exceeded")
    assert service.get(f"/jobs/{broken}")["status"] == "failed"
    assert service.client.post(f"/jobs/{paused}/resume", headers=headers).status_code == 202, "it counted before"
    act(service, Action.CANCEL, paused)
    assert service.client.post(f"/jobs/{broken}/{action}", headers=headers).status_code == 202
