"""Workers and the job queue."""

import base64
import json
from random import Random

import pytest
from sqlalchemy import update

from store.db import api_keys, tables
from store.jobs import lifecycle
from store.scheduling import worker_registry
from store.states import JobStatus

DISTILL = {
    "dataset": "shapes",
    "teacher": {"architecture": "gfl", "init": {"weights": "teacher.pth"}},
    "student": {"architecture": "gfl", "backbone": {"depth": 18}},
}
GPU = {"index": 0, "name": "A GPU", "memory_total": 80 << 30, "memory_used": 3 << 30, "utilization": 40}


def register_worker(service, id="worker", gpus=(), **options):
    service.transact(
        worker_registry.register, id, host="gpu-host", version="1.0", concurrency=2, gpus=list(gpus), **options
    )


def auth_headers(service, owner, scope):
    """Create a key and return its headers."""
    token = api_keys.new_token()
    service.transact(api_keys.add, owner, token, owner=owner, scopes=[scope])
    return {"Authorization": f"Bearer {token}"}


def update_job(service, job_id, **values):
    service.transact(
        lambda session: session.execute(update(tables.Job).where(tables.Job.id == job_id).values(**values))
    )


def test_a_worker_is_listed_with_its_gpus_and_jobs(service, shapes):
    assert service.get("/workers") == {"data": [], "next_cursor": None}
    register_worker(service, gpus=[GPU, {"index": 1, "name": None}], draining=True)
    lease = service.claim(service.submit()["id"])
    [worker] = service.get("/workers")["data"]
    assert (worker["id"], worker["host"], worker["version"], worker["concurrency"]) == ("worker", "gpu-host", "1.0", 2)
    assert worker["gpus"][0] == GPU
    assert worker["gpus"][1]["memory_used"] is None
    assert (worker["draining"], worker["running"], worker["job_ids"]) == (True, 1, [lease.job_id])
    assert worker["seen_at"].endswith("Z") and worker["nodes"] == 1


def test_a_worker_without_a_recent_heartbeat_is_not_listed(service, shapes):
    register_worker(service)
    expire = update(tables.Worker).values(seen_at=tables.Worker.seen_at - worker_registry.ALIVE_SECONDS - 1)
    service.transact(lambda session: session.execute(expire))
    assert service.get("/workers")["data"] == []


def test_the_queue_is_in_claim_order(service, shapes):
    ids = [service.submit(priority=priority, name=f"number {n}")["id"] for n, priority in enumerate([0, 5, 0, -5, 5])]
    queue = service.get("/queue")
    assert [row["job_id"] for row in queue["data"]] == [ids[n] for n in (1, 4, 0, 2, 3)]
    assert [row["position"] for row in queue["data"]] == [1, 2, 3, 4, 5]
    assert [row["name"] for row in queue["data"]][0] == "number 1"
    assert queue["counts"] == {"queued": 5, "running": 0, "paused": 0}
    claimed = []
    for _ in ids:
        claimed.append(service.transact(lambda session: lifecycle.claim(session, "w", 60.0)).job_id)
    assert claimed == [row["job_id"] for row in queue["data"]]


def test_the_pages_of_the_queue_add_up_to_the_whole(service, shapes):
    random = Random(1)
    for _ in range(11):
        service.submit(priority=random.choice([0, 0, 2, -1]))
    whole = service.get("/queue")["data"]
    for limit in (1, 3, 10, 11):
        rows, cursor = [], None
        while True:
            page = service.get("/queue", params={"limit": limit} | ({"cursor": cursor} if cursor else {}))
            rows += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert rows == whole


def test_a_job_claimed_between_two_pages_hides_no_other_job(service, shapes):
    ids = [service.submit()["id"] for _ in range(4)]
    first = service.get("/queue?limit=2")
    service.claim(ids[0])
    second = service.get("/queue", params={"limit": 2, "cursor": first["next_cursor"]})
    assert [row["job_id"] for row in second["data"]] == ids[2:]
    assert [row["position"] for row in second["data"]] == [2, 3]


def test_a_page_after_a_job_that_started_leaves_no_job_out(service, shapes):
    ids = [service.submit()["id"] for _ in range(4)]
    first = service.get("/queue?limit=2")
    service.claim(ids[1])
    rest = service.get("/queue", params={"cursor": first["next_cursor"]})["data"]
    assert {row["job_id"] for row in rest} >= set(ids[2:])


def test_the_queue_estimates_when_it_is_empty(service, shapes):
    assert service.get("/queue")["empty_at"].endswith("Z")
    first = service.submit()["id"]
    queue = service.get("/queue")
    assert (queue["empty_at"], queue["empty_at_reason"]) == (None, "No worker that claims jobs is running.")
    register_worker(service)
    service.finish(service.claim(first), JobStatus.SUCCEEDED)
    service.submit()
    queue = service.get("/queue")
    assert queue["empty_at"].endswith("Z") and queue["empty_at_reason"] is None


def test_the_queue_shows_the_turns_of_the_owners(service, shapes):
    bobs = [service.submit()["id"] for _ in range(3)]
    for job_id in bobs:
        update_job(service, job_id, owner="bob")
    own = [service.submit()["id"] for _ in range(2)]
    rows = service.get("/queue")["data"]
    assert [row["job_id"] for row in rows] == [own[0], bobs[0], own[1], bobs[1], bobs[2]]
    claimed = [service.transact(lambda session: lifecycle.claim(session, "w", 60.0)).job_id for _ in rows]
    assert claimed == [row["job_id"] for row in rows]


@pytest.mark.parametrize(
    "content",
    [[0], "xyz", [True, "job"], [0.0, "job"], [0, 1.0], [0, "j\u00f6b"], [10**30, "job"], [0, 1.0, "job"], None],
)
def test_an_invalid_cursor_is_rejected(shared_service, content):
    cursor = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
    shared_service.assert_problem(shared_service.client.get("/queue", params={"cursor": cursor}), 422, "invalid_cursor")


def test_every_queued_job_has_a_waiting_reason(service, shapes):
    teacher = service.submit()["id"]
    job_ids = {
        "waiting_for_detector": service.submit(DISTILL, teacher={"job": teacher})["id"],
        "waiting_for_device": service.submit(resources={"devices": 8})["id"],
        "waiting_for_nodes": service.submit(resources={"nodes": 2})["id"],
        "waiting_for_runs": service.submit(DISTILL, baseline=True)["comparison_job_id"],
        "waiting_for_worker": teacher,
        "waiting_for_storage": service.submit()["id"],
    }
    update_job(
        service,
        job_ids["waiting_for_storage"],
        status_reason_code="waiting_for_storage",
        status_reason_message="The disk is full.",
        status_reason_since=5.0,
        not_before=9e9,
    )
    register_worker(service, gpus=[GPU])
    rows = {row["job_id"]: row for row in service.get("/queue")["data"]}
    for code, job_id in job_ids.items():
        reason = rows[job_id]["status_reason"]
        assert reason["code"] == code
        assert reason["message"] and reason["hint"] and reason["since"].endswith("Z")
        assert service.get(f"/jobs/{job_id}")["status_reason"] == reason
    on_many_gpus, on_two_hosts = (rows[job_ids[f"waiting_for_{what}"]] for what in ("device", "nodes"))
    assert (on_many_gpus["devices"], on_many_gpus["nodes"]) == (8, 1)
    assert (on_two_hosts["devices"], on_two_hosts["nodes"]) == (None, 2)
    assert "2 hosts" in on_two_hosts["status_reason"]["message"]


def test_a_job_waits_for_workers_of_its_number_of_hosts(service, shapes):
    single, double = (service.submit(resources={"nodes": nodes, "devices": 1})["id"] for nodes in (1, 2))

    def reasons():
        return [service.get(f"/jobs/{job_id}")["status_reason"] for job_id in (single, double)]

    register_worker(service, "pair", gpus=[GPU], nodes=2)
    assert service.get("/workers")["data"][0]["nodes"] == 2
    assert [reason["code"] for reason in reasons()] == ["waiting_for_worker", "waiting_for_worker"]
    assert reasons()[0]["message"] == "All workers are for jobs on several hosts."
    register_worker(service, "alone")
    assert [reason["code"] for reason in reasons()] == ["waiting_for_device", "waiting_for_worker"]
    service.transact(worker_registry.deregister, "pair")
    assert [reason["code"] for reason in reasons()] == ["waiting_for_device", "waiting_for_nodes"]


def missing_dataset(dataset, owner="admin", name="shapes"):
    message = f"lacks shapes/train of data set {name} below its data sets' folder."
    return {"key": dataset["id"], "owner": owner, "message": message}


def test_a_job_whose_files_no_worker_has_names_host_and_path(service, shapes):
    job_id = service.submit()["id"]
    register_worker(service, missing=[missing_dataset(shapes)])
    reason = service.get(f"/jobs/{job_id}")["status_reason"]
    assert reason["code"] == "dataset_not_on_worker"
    assert reason["message"] == "gpu-host lacks shapes/train of data set shapes below its data sets' folder."
    assert "FRS_DATASETS_ROOT" in reason["hint"]
    assert service.get("/queue")["data"][0]["status_reason"] == reason
    register_worker(service, id="another")
    assert service.get(f"/jobs/{job_id}")["status_reason"]["code"] == "waiting_for_worker"


def test_missing_files_are_shown_only_to_their_owners(service, shapes):
    register_worker(service, missing=[missing_dataset(shapes), missing_dataset(shapes, owner="bob", name="bobs")])
    assert len(service.get("/workers")["data"][0]["missing"]) == 2
    bob_headers, carol_headers = (auth_headers(service, owner, api_keys.Scope.READ) for owner in ("bob", "carol"))
    assert len(service.get("/workers", headers=bob_headers)["data"][0]["missing"]) == 1
    assert service.get("/workers", headers=carol_headers)["data"][0]["missing"] == []


def test_a_requirement_missing_for_many_jobs_is_shown_once(service):
    fields = {"owner": "admin", "message": "runs version 1, which cannot read a job's spec: novelty."}
    register_worker(service, missing=[{"key": f"spec/{number}", **fields} for number in range(3)])
    assert service.get("/workers")["data"][0]["missing"] == [fields["message"]]


def test_a_job_whose_spec_no_worker_can_read_names_the_version(service, shapes):
    job_id, other_id = (service.submit()["id"] for _ in range(2))
    message = "runs version 1, which cannot read a job's spec: novelty."
    register_worker(service, missing=[{"key": f"spec/{job_id}", "owner": "admin", "message": message}])
    reason = service.get(f"/jobs/{job_id}")["status_reason"]
    assert (reason["code"], reason["message"]) == ("spec_unknown_to_worker", f"gpu-host {message}")
    assert service.get(f"/jobs/{other_id}")["status_reason"]["code"] == "waiting_for_worker"


def test_running_jobs_are_listed_beside_the_queue(service, shapes):
    lease = service.claim(service.submit(name="busy")["id"])
    paused = service.submit()["id"]
    service.client.post(f"/jobs/{paused}/pause")
    queue = service.get("/queue")
    assert queue["data"] == []
    assert queue["counts"] == {"queued": 0, "running": 1, "paused": 1}
    [running] = queue["running"]
    assert (running["job_id"], running["name"], running["attempt"]) == (lease.job_id, "busy", 1)


def test_only_the_number_of_other_owners_jobs_is_visible(service, shapes):
    first, last = (service.submit(name="secret")["id"] for _ in range(2))
    own = service.submit()["id"]
    busy = service.claim(service.submit(name="secret")["id"])
    update_job(service, own, owner="stranger")
    register_worker(service)
    stranger = auth_headers(service, "stranger", api_keys.Scope.READ)
    queue = service.get("/queue", headers=stranger)
    assert [(row["job_id"], row["position"]) for row in queue["data"]] == [(own, 1)], "the turn of another owner"
    assert (queue["counts"]["queued"], queue["running"]) == (3, [])
    [worker] = service.get("/workers", headers=stranger)["data"]
    assert (worker["running"], worker["job_ids"]) == (1, [])
    text = json.dumps([queue, worker])
    assert not any(hidden in text for hidden in (first, last, busy.job_id, "secret"))
    whole = service.get("/queue", headers=auth_headers(service, "boss", api_keys.Scope.ADMIN))
    assert [row["job_id"] for row in whole["data"]] == [own, first, last]
    assert whole["running"][0]["job_id"] == busy.job_id


def test_ended_and_cancelled_jobs_are_not_in_the_queue(service, shapes):
    ids = [service.submit()["id"] for _ in range(3)]
    service.finish(service.claim(ids[0]), JobStatus.SUCCEEDED)
    service.client.post(f"/jobs/{ids[1]}/cancel")
    assert [row["job_id"] for row in service.get("/queue")["data"]] == ids[2:]
