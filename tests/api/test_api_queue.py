"""Workers, and the line before them."""

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


def a_worker(service, id="worker", gpus=(), **more):
    service._do(worker_registry.register, id, host="here", version="1.0", concurrency=2, gpus=list(gpus), **more)


def somebody(service, owner, scope):
    token = api_keys.new_token()
    service._do(api_keys.add, owner, token, owner=owner, scopes=[scope])
    return {"Authorization": f"Bearer {token}"}


def alter(service, job_id, **values):
    service._do(lambda session: session.execute(update(tables.Job).where(tables.Job.id == job_id).values(**values)))


def test_a_worker_says_what_it_has_and_what_it_does(service, shapes):
    assert service.get("/workers") == {"data": [], "next_cursor": None}
    a_worker(service, gpus=[GPU, {"index": 1, "name": None}], draining=True)
    lease = service.claim(service.submit()["id"])
    [worker] = service.get("/workers")["data"]
    assert (worker["id"], worker["host"], worker["version"], worker["concurrency"]) == ("worker", "here", "1.0", 2)
    assert worker["gpus"][0] == GPU
    assert worker["gpus"][1]["memory_used"] is None
    assert (worker["draining"], worker["running"], worker["job_ids"]) == (True, 1, [lease.job_id])
    assert worker["seen_at"].endswith("Z")


def test_a_worker_that_has_fallen_silent_is_left_out(service, shapes):
    a_worker(service)
    long_ago = update(tables.Worker).values(seen_at=tables.Worker.seen_at - worker_registry.ALIVE_SECONDS - 1)
    service._do(lambda session: session.execute(long_ago))
    assert service.get("/workers")["data"] == []


def test_the_queue_is_in_the_order_in_which_workers_take_it(service, shapes):
    ids = [service.submit(priority=priority, name=f"number {n}")["id"] for n, priority in enumerate([0, 5, 0, -5, 5])]
    queue = service.get("/queue")
    assert [row["job_id"] for row in queue["data"]] == [ids[n] for n in (1, 4, 0, 2, 3)]
    assert [row["position"] for row in queue["data"]] == [1, 2, 3, 4, 5]
    assert [row["name"] for row in queue["data"]][0] == "number 1"
    assert queue["counts"] == {"queued": 5, "running": 0, "paused": 0}
    taken = []
    for _ in ids:
        taken.append(service._do(lambda session: lifecycle.claim(session, "w", 60.0)).job_id)
    assert taken == [row["job_id"] for row in queue["data"]]


def test_the_queue_comes_page_by_page(service, shapes):
    numbers = Random(1)
    for _ in range(11):
        service.submit(priority=numbers.choice([0, 0, 2, -1]))
    whole = service.get("/queue")["data"]
    for limit in (1, 3, 10, 11):
        found, cursor = [], None
        while True:
            page = service.get("/queue", params={"limit": limit} | ({"cursor": cursor} if cursor else {}))
            found += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert found == whole


def test_a_job_taken_between_two_pages_hides_no_other(service, shapes):
    ids = [service.submit()["id"] for _ in range(4)]
    first = service.get("/queue?limit=2")
    service.claim(ids[0])
    second = service.get("/queue", params={"limit": 2, "cursor": first["next_cursor"]})
    assert [row["job_id"] for row in second["data"]] == ids[2:]
    assert [row["position"] for row in second["data"]] == [2, 3]


@pytest.mark.parametrize(
    "content", [[0, 1.0], "x", [True, 1.0, "job"], [0, 1, "job"], [0, float("nan"), "job"], [10**30, 1.0, "job"], None]
)
def test_a_cursor_that_is_none_is_refused(refusing, content):
    cursor = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
    refusing.refused(refusing.client.get("/queue", params={"cursor": cursor}), 422, "invalid_cursor")


def test_everybody_in_the_queue_says_what_it_waits_for(service, shapes):
    teacher = service.submit()["id"]
    waits = {
        "waiting_for_teacher": service.submit(DISTILL, teacher={"job": teacher})["id"],
        "waiting_for_device": service.submit(resources={"devices": 8})["id"],
        "waiting_for_runs": service.submit(DISTILL, baseline=True)["comparison_job_id"],
        "waiting_for_worker": teacher,
        "retry_backoff": service.submit()["id"],
    }
    alter(
        service,
        waits["retry_backoff"],
        status_reason_code="retry_backoff",
        status_reason_message="It died.",
        status_reason_since=5.0,
    )
    a_worker(service, gpus=[GPU])
    rows = {row["job_id"]: row for row in service.get("/queue")["data"]}
    for code, job_id in waits.items():
        reason = rows[job_id]["status_reason"]
        assert reason["code"] == code
        assert reason["message"] and reason["hint"] and reason["since"].endswith("Z")
        assert service.get(f"/jobs/{job_id}")["status_reason"] == reason
    assert rows[waits["waiting_for_device"]]["devices"] == 8


def lack(dataset, owner="admin", name="shapes"):
    message = f"lacks shapes/train of data set {name} below its data sets' folder."
    return {"key": dataset["id"], "owner": owner, "message": message}


def test_a_job_whose_data_no_worker_has_says_where_what_is_lacking(service, shapes):
    job_id = service.submit()["id"]
    a_worker(service, missing=[lack(shapes)])
    reason = service.get(f"/jobs/{job_id}")["status_reason"]
    assert reason["code"] == "dataset_not_on_worker"
    assert reason["message"] == "here lacks shapes/train of data set shapes below its data sets' folder."
    assert "FRS_DATASETS_ROOT" in reason["hint"]
    assert service.get("/queue")["data"][0]["status_reason"] == reason
    a_worker(service, id="another")
    assert service.get(f"/jobs/{job_id}")["status_reason"]["code"] == "waiting_for_worker"


def test_what_a_worker_lacks_is_shown_to_those_it_concerns(service, shapes):
    a_worker(service, missing=[lack(shapes), lack(shapes, owner="bob", name="bobs")])
    assert len(service.get("/workers")["data"][0]["missing"]) == 2
    bobs, carols = (somebody(service, owner, api_keys.Scope.READ) for owner in ("bob", "carol"))
    assert len(service.get("/workers", headers=bobs)["data"][0]["missing"]) == 1
    assert service.get("/workers", headers=carols)["data"][0]["missing"] == []


def test_what_a_worker_lacks_for_many_jobs_is_shown_once(service):
    said = {"owner": "admin", "message": "runs version 1, which cannot read a job's spec: novelty."}
    a_worker(service, missing=[{"key": f"spec/{number}", **said} for number in range(3)])
    assert service.get("/workers")["data"][0]["missing"] == [said["message"]]


def test_a_job_that_no_worker_can_read_waits_for_another_version(service, shapes):
    job_id, other_id = (service.submit()["id"] for _ in range(2))
    message = "runs version 1, which cannot read a job's spec: novelty."
    a_worker(service, missing=[{"key": f"spec/{job_id}", "owner": "admin", "message": message}])
    reason = service.get(f"/jobs/{job_id}")["status_reason"]
    assert (reason["code"], reason["message"]) == ("spec_unknown_to_worker", f"here {message}")
    assert service.get(f"/jobs/{other_id}")["status_reason"]["code"] == "waiting_for_worker"


def test_what_is_running_stands_beside_the_queue(service, shapes):
    lease = service.claim(service.submit(name="busy")["id"])
    paused = service.submit()["id"]
    service.client.post(f"/jobs/{paused}/pause")
    queue = service.get("/queue")
    assert queue["data"] == []
    assert queue["counts"] == {"queued": 0, "running": 1, "paused": 1}
    [running] = queue["running"]
    assert (running["job_id"], running["name"], running["attempt"]) == (lease.job_id, "busy", 1)


def test_of_others_jobs_one_learns_how_many_they_are_and_no_more(service, shapes):
    first, last = (service.submit(name="secret")["id"] for _ in range(2))
    mine = service.submit()["id"]
    busy = service.claim(service.submit(name="secret")["id"])
    alter(service, mine, owner="stranger")
    a_worker(service)
    stranger = somebody(service, "stranger", api_keys.Scope.READ)
    queue = service.get("/queue", headers=stranger)
    assert [(row["job_id"], row["position"]) for row in queue["data"]] == [(mine, 3)]
    assert (queue["counts"]["queued"], queue["running"]) == (3, [])
    [worker] = service.get("/workers", headers=stranger)["data"]
    assert (worker["running"], worker["job_ids"]) == (1, [])
    seen = json.dumps([queue, worker])
    assert not any(hidden in seen for hidden in (first, last, busy.job_id, "secret"))
    whole = service.get("/queue", headers=somebody(service, "boss", api_keys.Scope.ADMIN))
    assert [row["job_id"] for row in whole["data"]] == [first, last, mine]
    assert whole["running"][0]["job_id"] == busy.job_id


def test_a_job_that_left_the_queue_is_not_in_it(service, shapes):
    ids = [service.submit()["id"] for _ in range(3)]
    service.settle(service.claim(ids[0]), JobStatus.SUCCEEDED)
    service.client.post(f"/jobs/{ids[1]}/cancel")
    assert [row["job_id"] for row in service.get("/queue")["data"]] == ids[2:]
