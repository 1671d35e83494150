"""Actions on submitted jobs, in every state of a job."""

from unittest.mock import Mock

import pytest
from sqlalchemy import select, update

from store.db import api_keys
from store.db.tables import Detector, Event, Job
from store.errors import ArtifactsUnavailable, LeaseLost
from store.jobs import lifecycle
from store.jobs.lease import RequestedAction
from store.states import ALLOWED, Action, EndReason, JobStatus, allowed_actions

DISTILL = {
    "dataset": "shapes",
    "teacher": {"architecture": "gfl", "init": {"weights": "teacher.pth"}},
    "student": {"architecture": "gfl", "backbone": {"depth": 18}},
}
UNKNOWN_JOB = "job_00000000000000000000000000"


@pytest.fixture
def woken_job_ids(service, monkeypatch):
    """Job ids of the wake-ups that were enqueued."""
    job_ids = []
    monkeypatch.setattr(service.client.app.state.context.wakeups, "enqueue", job_ids.append)
    return job_ids


def post_action(service, action, job_id):
    if action == Action.DELETE:
        return service.client.delete(f"/jobs/{job_id}")
    return service.client.post(f"/jobs/{job_id}/{action}")


def job_in_status(service, status):
    """Return the id of a job that users and workers have brought to this status."""
    job_id = service.submit()["id"]
    match status:
        case JobStatus.PAUSED:
            post_action(service, Action.PAUSE, job_id)
        case JobStatus.CANCELLED:
            post_action(service, Action.CANCEL, job_id)
        case JobStatus.RUNNING:
            service.claim(job_id)
        case JobStatus.SUCCEEDED:
            service.finish(service.claim(job_id))
        case JobStatus.FAILED:
            service.finish(service.claim(job_id), JobStatus.FAILED, end_reason=EndReason.DIVERGED)
    assert service.get(f"/jobs/{job_id}")["status"] == status
    return job_id


def failed_job_id(service, **changes):
    lease = service.claim(service.submit(**changes)["id"])
    service.finish(lease, JobStatus.FAILED, end_reason=EndReason.DIVERGED)
    return lease.job_id


def headers_of(service, owner, *scopes):
    """Return the headers of a new key of this owner."""
    token = api_keys.new_token()
    with service.database.write() as session:
        api_keys.add(session, owner, token, owner=owner, scopes=scopes)
        session.commit()
    return {"Authorization": f"Bearer {token}"}


STATUS_AFTER = {
    (Action.CANCEL, JobStatus.QUEUED): "cancelled",
    (Action.CANCEL, JobStatus.PAUSED): "cancelled",
    (Action.CANCEL, JobStatus.RUNNING): "running",
    (Action.STOP, JobStatus.RUNNING): "running",
    (Action.PAUSE, JobStatus.QUEUED): "paused",
    (Action.PAUSE, JobStatus.RUNNING): "running",
}
"""Status of the job after the action; all other actions return the job to the queue."""


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("status", list(JobStatus))
def test_every_action_follows_the_table_of_allowed_actions(service, shapes, action, status):
    job_id = job_in_status(service, status)
    assert service.get(f"/jobs/{job_id}")["allowed_actions"] == allowed_actions(status)
    response = post_action(service, action, job_id)
    if status not in ALLOWED[action]:
        problem = service.assert_problem(response, 409, "action_not_allowed")
        assert problem["allowed_actions"] == allowed_actions(status)
        assert service.get(f"/jobs/{job_id}")["status"] == status
    elif action == Action.DELETE:
        assert (response.status_code, response.content) == (204, b"")
        service.assert_problem(service.client.get(f"/jobs/{job_id}"), 404, "job_not_found")
    else:
        assert response.status_code == 202
        assert response.json()["status"] == STATUS_AFTER.get((action, status), "queued")
        assert response.json() == service.get_summary(job_id)


@pytest.mark.parametrize(
    ("action", "requested_action"),
    [
        (Action.STOP, RequestedAction.STOP),
        (Action.PAUSE, RequestedAction.PAUSE),
        (Action.CANCEL, RequestedAction.CANCEL),
    ],
)
def test_the_worker_of_a_running_job_receives_a_repeated_action_once(service, shapes, action, requested_action):
    lease = service.claim(service.submit()["id"])
    assert [post_action(service, action, lease.job_id).status_code for _ in range(2)] == [202, 202]
    with service.database.write() as session:
        assert lifecycle.renew(session, lease, 60).requested_action == requested_action
    types = [event["type"] for event in service.get(f"/jobs/{lease.job_id}/events")["data"]]
    assert types == ["status", "status", f"{action}_requested"]


def test_resume_and_retry_wake_up_workers(service, shapes, woken_job_ids):
    paused, broken = job_in_status(service, JobStatus.PAUSED), failed_job_id(service)
    woken_job_ids.clear()
    post_action(service, Action.RESUME, paused)
    post_action(service, Action.RETRY, broken)
    assert woken_job_ids == [paused, broken]


def test_a_rejected_action_wakes_up_no_worker(service, shapes, woken_job_ids):
    job_id = service.submit()["id"]
    woken_job_ids.clear()
    post_action(service, Action.RESUME, job_id)
    assert woken_job_ids == []


def test_pausing_a_parent_does_not_pause_its_children(service, shapes):
    parent = service.submit(DISTILL, baseline={"seeds": 2})
    post_action(service, Action.PAUSE, parent["id"])
    run_group = [*parent["baseline_job_ids"], *parent["seed_job_ids"], parent["comparison_job_id"]]
    assert {service.get(f"/jobs/{job_id}")["status"] for job_id in run_group} == {"queued"}
    comparison = service.get(f"/jobs/{parent['comparison_job_id']}")
    assert comparison["status_reason"]["code"] == "waiting_for_runs"


def test_jobs_that_need_a_cancelled_job_fail_at_once(service, shapes):
    parent = service.submit(DISTILL, baseline=True)
    post_action(service, Action.CANCEL, parent["baseline_job_ids"][0])
    comparison = service.get(f"/jobs/{parent['comparison_job_id']}")
    assert (comparison["status"], comparison["end_reason"]) == ("failed", "dependency_failed")
    assert service.get(f"/jobs/{parent['id']}")["status"] == "queued"


def test_a_job_names_the_jobs_that_fail_if_it_is_cancelled(service, shapes):
    teacher = service.submit(baseline=False)["id"]
    student = service.submit(DISTILL, teacher={"job": teacher}, name="student", baseline={"seeds": 2})["id"]
    export = service.client.post(f"/jobs/{student}/exports", json={"formats": ["onnx"]}).json()["id"]
    other = service.submit(DISTILL)["id"]
    ids = [dependent["id"] for dependent in service.get(f"/jobs/{teacher}")["dependents"]]
    assert ids == [student, export], "the seed of the student is part of it"
    assert service.get(f"/jobs/{teacher}")["dependents"][0] == {"id": student, "name": "student", "status": "queued"}
    assert service.get(f"/jobs/{other}")["dependents"] == []
    post_action(service, Action.CANCEL, teacher)
    service.transact(lifecycle.fail_dependents)  # as the reaper does
    assert {service.get(f"/jobs/{id}")["end_reason"] for id in ids} == {"dependency_failed"}
    assert service.get(f"/jobs/{teacher}")["dependents"] == []


def test_a_job_names_no_dependents_of_other_owners(service, shapes):
    teacher = service.submit(baseline=False)["id"]
    service.submit(DISTILL, teacher={"job": teacher})
    service.transact(lambda session: session.execute(update(Job).where(Job.id == teacher).values(owner="bob")))
    token = api_keys.new_token()
    service.transact(api_keys.add, "bob", token, owner="bob", scopes=[api_keys.Scope.READ])
    headers = {"Authorization": f"Bearer {token}"}
    assert service.get(f"/jobs/{teacher}", headers=headers)["dependents"] == []
    assert len(service.get(f"/jobs/{teacher}")["dependents"]) == 1


def test_resume_requeues_jobs_that_failed_because_of_the_job(service, shapes):
    teacher = service.submit()["id"]
    student = service.submit(DISTILL, teacher={"job": teacher})["id"]
    post_action(service, Action.CANCEL, teacher)
    service.transact(lifecycle.fail_dependents)
    assert service.get(f"/jobs/{student}")["end_reason"] == "dependency_failed"
    post_action(service, Action.RESUME, teacher)
    back = service.get(f"/jobs/{student}")
    assert (back["status"], back["error"], back["finished_at"]) == ("queued", None, None)


@pytest.mark.parametrize("action", [Action.RESUME, Action.RETRY])
def test_a_cancelled_run_group_returns_with_its_job(service, shapes, action):
    parent = service.submit(DISTILL, baseline={"seeds": 2})
    run_group = [*parent["baseline_job_ids"], *parent["seed_job_ids"], parent["comparison_job_id"]]
    post_action(service, Action.CANCEL, parent["id"])
    assert {service.get(f"/jobs/{job_id}")["status"] for job_id in run_group} == {"cancelled"}
    post_action(service, action, parent["id"])
    service.transact(lifecycle.fail_dependents)
    assert {service.get(f"/jobs/{job_id}")["status"] for job_id in run_group} == {"queued"}


def failed_job_with_student(service):
    """Return the ids of a failed job and of its student checkpoint, and the checkpoint's file."""
    lease = service.claim(service.submit()["id"])
    checkpoint = service.checkpoint(lease)
    service.evaluate(lease, "student", 0.3)
    service.finish(lease, JobStatus.FAILED, end_reason=EndReason.DIVERGED)
    [file] = [path for path in service.artifacts.root.rglob("*") if path.is_file()]
    return lease.job_id, checkpoint, file


def test_retry_starts_from_scratch_and_resume_does_not(service, shapes):
    job_id, checkpoint, file = failed_job_with_student(service)
    post_action(service, Action.RESUME, job_id)
    assert file.is_file()
    assert service.get(f"/jobs/{job_id}/evaluations")["data"]
    post_action(service, Action.CANCEL, job_id)
    job = post_action(service, Action.RETRY, job_id).json()
    assert (job["status"], job["attempt"], job["started_at"], job["progress"]) == ("queued", 1, None, None)
    assert service.get(f"/jobs/{job_id}/evaluations")["data"] == []
    assert service.client.get(f"/checkpoints/{checkpoint}").status_code == 404
    assert not file.exists()


def test_an_unavailable_artifact_store_is_called_once_for_all_files(service, shapes, monkeypatch, caplog):
    """Each request to an unavailable store can take 30 s."""
    lease = service.claim(service.submit()["id"])
    for name in ("a.json", "b.json", "c.json"):
        service.artifact(lease, name, name.encode())
    service.finish(lease)
    away = Mock(side_effect=ArtifactsUnavailable("s3://bucket answers 503"))
    monkeypatch.setattr(type(service.artifacts), "delete", away)
    assert service.client.delete(f"/jobs/{lease.job_id}").status_code == 204
    assert away.call_count == 1
    assert "3 files not deleted: s3://bucket answers 503" in caplog.text


def test_a_file_that_cannot_be_deleted_does_not_prevent_deleting_the_others(service, shapes, monkeypatch):
    lease = service.claim(service.submit()["id"])
    for name in ("a.json", "b.json", "c.json"):
        service.artifact(lease, name, name.encode())
    service.finish(lease)
    one = Mock(side_effect=[PermissionError(13, "Permission denied"), None, None])
    monkeypatch.setattr(type(service.artifacts), "delete", one)
    assert service.client.delete(f"/jobs/{lease.job_id}").status_code == 204
    assert one.call_count == 3


@pytest.mark.parametrize(("query", "is_kept"), [("", False), ("?artifacts=delete", False), ("?artifacts=keep", True)])
def test_delete_removes_the_job_and_keeps_its_files_on_request(service, shapes, query, is_kept):
    job_id, checkpoint, file = failed_job_with_student(service)
    assert service.client.delete(f"/jobs/{job_id}{query}").status_code == 204
    assert service.client.get(f"/checkpoints/{checkpoint}").status_code == 404
    assert file.exists() == is_kept
    with service.database.read() as session:
        assert session.scalars(select(Event).where(Event.job_id == job_id)).all() == []


def test_a_file_that_cannot_be_deleted_is_only_logged(service, shapes, monkeypatch, caplog):
    job_id, _, file = failed_job_with_student(service)
    context = service.client.app.state.context

    def refuse(key):
        raise PermissionError(13, "Permission denied", key)

    monkeypatch.setattr(type(context.artifacts), "delete", lambda _, key: refuse(key))
    assert service.client.delete(f"/jobs/{job_id}").status_code == 204
    assert [record.message for record in caplog.records if "file not deleted" in record.message]
    assert file.exists()


def test_a_published_detectors_weights_outlive_its_job(service, shapes):
    job_id = service.succeeded_job()
    service.client.post("/detectors", json={"name": "mine", "job": job_id})
    assert service.client.delete(f"/jobs/{job_id}").status_code == 204
    assert service.get("/detectors/mine")["job_id"] is None
    with service.database.read() as session:
        assert service.artifacts.path(session.scalars(select(Detector.weights_key)).one()).is_file()


def test_a_job_that_another_job_needs_cannot_be_deleted(service, shapes):
    teacher = service.succeeded_job()
    student = service.submit(DISTILL, teacher={"job": teacher})["id"]
    problem = service.assert_problem(service.client.delete(f"/jobs/{teacher}"), 409, "job_in_use")
    assert student in problem["detail"]
    post_action(service, Action.CANCEL, student)
    assert service.client.delete(f"/jobs/{teacher}").status_code == 204


def test_a_parent_is_deleted_with_its_children_when_all_have_ended(service, shapes):
    parent = service.submit(DISTILL, baseline=True)
    service.finish(service.claim(parent["id"]))
    run_group = [*parent["baseline_job_ids"], parent["comparison_job_id"]]
    problem = service.assert_problem(service.client.delete(f"/jobs/{parent['id']}"), 409, "job_in_use")
    assert any(job_id in problem["detail"] for job_id in run_group)
    post_action(service, Action.CANCEL, parent["baseline_job_ids"][0])
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


def test_an_empty_change_adds_no_event(service, shapes):
    job = service.submit(name="x", tags=["a"], priority=1)
    assert service.client.patch(f"/jobs/{job['id']}", json={}).json() == job
    assert len(service.get(f"/jobs/{job['id']}/events")["data"]) == 1


def test_a_priority_above_0_requires_the_scope_priority(service, shapes):
    job = service.submit()
    plain, urgent = (headers_of(service, "admin", *scopes) for scopes in (["submit"], ["submit", "priority"]))
    path, spec = f"/jobs/{job['id']}", job["spec"] | {"priority": 1}
    for response in (
        service.client.post("/jobs", json=spec, headers=plain),
        service.client.post("/jobs/plan", json=spec, headers=plain),
        service.client.post("/jobs/plan?probe=true", json=spec, headers=plain),
        service.client.patch(path, json={"priority": 1}, headers=plain),
    ):
        problem = service.assert_problem(response, 403, "scope_missing")
        assert problem["detail"] == "Priority 1, like every priority above 0, needs a key with the scope `priority`."
        assert problem["hint"]
    assert service.get(path)["priority"] == 0
    assert service.client.patch(path, json={"priority": -1}, headers=plain).status_code == 200
    assert service.client.patch(path, json={"priority": 1}, headers=urgent).json()["priority"] == 1
    assert service.client.post("/jobs", json=spec, headers=urgent).status_code == 201


def test_a_key_with_the_scope_priority_alone_reads_nothing(service):
    priority = headers_of(service, "admin", "priority")
    service.assert_problem(service.client.get("/jobs", headers=priority), 403, "scope_missing")


def test_a_higher_priority_moves_a_job_to_the_front_of_the_queue(service, shapes):
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
def test_an_invalid_change_is_rejected_with_its_field(service, shapes, body, loc):
    job = service.submit()
    problem = service.assert_problem(service.client.patch(f"/jobs/{job['id']}", json=body), 422, "invalid_request")
    assert problem["errors"][0]["loc"].startswith(loc)
    assert service.get_summary(job["id"]) == job


def test_a_job_that_has_ended_can_be_renamed(service, shapes):
    job_id = service.succeeded_job()
    assert service.client.patch(f"/jobs/{job_id}", json={"name": "the good one"}).json()["name"] == "the good one"


@pytest.mark.parametrize("action", [*Action, "change"])
def test_a_job_of_another_owner_is_not_found(service, shapes, action):
    job_id = service.submit()["id"]
    stranger = headers_of(service, "stranger", api_keys.Scope.SUBMIT)
    method, path = {Action.DELETE: ("DELETE", ""), "change": ("PATCH", "")}.get(action, ("POST", f"/{action}"))
    for id in (job_id, UNKNOWN_JOB):
        response = service.client.request(
            method, f"/jobs/{id}{path}", headers=stranger, json={} if path == "" else None
        )
        service.assert_problem(response, 404, "job_not_found")
    assert service.get(f"/jobs/{job_id}")["status"] == "queued"


@pytest.mark.parametrize("action", [*Action, "change"])
def test_a_key_with_scope_read_cannot_change_jobs(service, shapes, action):
    job_id = service.submit()["id"]
    reader = headers_of(service, "admin", api_keys.Scope.READ)
    method, path = {Action.DELETE: ("DELETE", ""), "change": ("PATCH", "")}.get(action, ("POST", f"/{action}"))
    response = service.client.request(method, f"/jobs/{job_id}{path}", headers=reader, json={} if path == "" else None)
    service.assert_problem(response, 403, "scope_missing")


def test_writes_of_a_worker_to_a_paused_job_are_rejected(service, shapes):
    lease = service.claim(service.submit()["id"])
    post_action(service, Action.PAUSE, lease.job_id)
    service.transact(lifecycle.requeue, lease, attempt_counts=False)
    assert service.get(f"/jobs/{lease.job_id}")["status"] == "paused"
    with pytest.raises(LeaseLost):
        service.evaluate(lease, "student", 0.5)


@pytest.mark.parametrize("action", [Action.RESUME, Action.RETRY])
def test_a_reactivated_job_counts_against_the_quota(service, shapes, action):
    broken = failed_job_id(service)
    headers = {"Authorization": f"Bearer {api_keys.new_token()}"}
    token = headers["Authorization"].removeprefix("Bearer ")
    service.transact(api_keys.add, "two", token, max_active_jobs=2)
    paused, _ = (service.submit()["id"] for _ in range(2))
    post_action(service, Action.PAUSE, paused)
    response = service.client.post(f"/jobs/{broken}/{action}", headers=headers)
    service.assert_problem(response, 429, "quota_exceeded")
    assert service.get(f"/jobs/{broken}")["status"] == "failed"
    assert service.client.post(f"/jobs/{paused}/resume", headers=headers).status_code == 202, "it counted before"
    post_action(service, Action.CANCEL, paused)
    assert service.client.post(f"/jobs/{broken}/{action}", headers=headers).status_code == 202
