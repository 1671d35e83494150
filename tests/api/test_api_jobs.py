"""Listing, cancellation, events and logs of jobs."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from sqlalchemy import update
from waiting import until

from api.app import create_app
from frs import events
from store.db.tables import Job
from store.errors import LeaseLost
from store.jobs import lifecycle
from store.states import EndReason, JobStatus

TRAIN = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}}


def read_all_pages(service, path, **query):
    rows, cursor = [], None
    while True:
        page = service.get(path, params=query | ({"cursor": cursor} if cursor else {}))
        assert len(page["data"]) <= query.get("limit", 50)
        rows += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return rows


def test_jobs_are_listed_newest_first_page_by_page(service, shapes):
    ids = [service.submit()["id"] for _ in range(7)]
    for limit in (1, 3, 7, 200):
        assert [job["id"] for job in read_all_pages(service, "/jobs", limit=limit)] == ids[::-1]


def test_a_job_added_between_two_pages_does_not_shift_the_second(service, shapes):
    ids = [service.submit()["id"] for _ in range(4)]
    first = service.get("/jobs?limit=2")
    service.submit()
    second = service.get("/jobs", params={"limit": 2, "cursor": first["next_cursor"]})
    assert [job["id"] for job in first["data"] + second["data"]] == ids[::-1]


def test_the_list_contains_the_same_jobs_as_single_requests(service, shapes):
    jobs = [service.submit() for _ in range(3)]
    assert service.get("/jobs")["data"] == [service.get_summary(job["id"]) for job in jobs[::-1]]
    assert [job["queue_position"] for job in service.get("/jobs")["data"]] == [3, 2, 1]


@pytest.mark.parametrize(
    ("text", "expected"), [("ON", ["second", "one"]), ("%", []), ("o_e", []), ("", ["second", "one"])]
)
def test_jobs_are_found_by_a_part_of_their_name(service, shapes, text, expected):
    for name in ("one", "second"):
        service.submit({"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "name": name})
    assert [job["name"] for job in service.get("/jobs", params={"name": text})["data"]] == expected


def test_jobs_are_filtered(service, shapes):
    service.register(
        "other",
        train={"images": "shapes/val", "annotations": "shapes/annotations/instances_val.json"},
        val={"images": "shapes/val", "annotations": "shapes/annotations/instances_val.json"},
    )
    a = service.submit(tags=["paper", 'quoted "x"'])
    b = service.submit(dataset="other", tags=["paper-2"])
    c = service.submit({"kind": "evaluate", "dataset": "shapes", "student": {"architecture": "gfl"}})
    service.client.post(f"/jobs/{c['id']}/cancel")

    def filtered_ids(**query):
        return [job["id"] for job in service.get("/jobs", params=query)["data"]]

    assert filtered_ids(status="queued") == [b["id"], a["id"]]
    assert filtered_ids(status=["queued", "cancelled"]) == [c["id"], b["id"], a["id"]]
    assert filtered_ids(kind="evaluate") == [c["id"]]
    assert filtered_ids(dataset="other") == filtered_ids(dataset=b["spec"]["dataset"]) == [b["id"]]
    assert filtered_ids(dataset=shapes["id"]) == [c["id"], a["id"]]
    assert filtered_ids(dataset="nope") == []
    assert filtered_ids(tag="paper") == filtered_ids(tag='quoted "x"') == [a["id"]]
    assert filtered_ids(tag="pap") == filtered_ids(tag="PAPER") == []
    created = [datetime.fromisoformat(job["created_at"]) for job in (a, b)]
    between = (created[0] + (created[1] - created[0]) / 2).isoformat()
    assert filtered_ids(created_after=between) == [c["id"], b["id"]]
    assert filtered_ids(created_before=between) == [a["id"]]
    assert filtered_ids(kind="train", tag="paper", status="cancelled") == []


def test_a_running_job_shows_its_progress(service, shapes):
    lease = service.claim(service.submit()["id"])
    progress = {"epoch": 1, "epochs": 2, "step": 5, "steps": 20, "fraction": 0.25, "eta_seconds": 3.0}
    service.record(lease, events.Phase(phase="training"), events.Progress(**progress, images_per_second=8.0))
    job = service.get(f"/jobs/{lease.job_id}")
    assert (job["status"], job["phase"], job["attempt"]) == ("running", "training", 1)
    assert job["progress"] == progress | {"images_per_second": 8.0, "phase_fraction": None, "stale": False}
    assert (job["queue_position"], job["status_reason"]) == (None, None)
    assert job["started_at"].endswith("Z")
    assert job["finished_at"] is None


def test_progress_of_a_job_without_a_living_worker_has_no_remaining_time(service, shapes):
    lease = service.claim(service.submit()["id"])
    progress = {"epoch": 1, "epochs": 2, "step": 5, "steps": 20, "fraction": 0.25, "eta_seconds": 99_000.0}
    service.record(lease, events.Progress(**progress, images_per_second=8.0))
    service.transact(lambda session: session.execute(update(Job).values(lease_expires_at=1.0)))
    stale = service.get(f"/jobs/{lease.job_id}")["progress"]
    assert (stale["stale"], stale["eta_seconds"], stale["step"]) == (True, None, 5)
    service.transact(lifecycle.requeue_expired)
    requeued = service.get(f"/jobs/{lease.job_id}")
    assert (requeued["progress"]["stale"], requeued["progress"]["eta_seconds"]) == (False, None)
    assert requeued["status_reason"]["message"] == "No worker is running."


def test_a_job_in_the_queue_again_waits_since_it_was_requeued(service, shapes):
    lease = service.claim(service.submit()["id"])
    service.transact(lambda session: session.execute(update(Job).values(created_at=1.0, lease_expires_at=1.0)))
    service.transact(lifecycle.requeue_expired)
    assert service.get(f"/jobs/{lease.job_id}")["status_reason"]["since"] > "2020"


def test_the_api_requeues_the_job_of_the_last_worker_when_its_lease_expires(serve, settings):
    settings = settings.model_copy(update={"reap_seconds": 0.1})
    with serve(create_app(settings), settings) as service:
        service.register("shapes")
        lease = service.claim(service.submit()["id"])
        service.transact(lambda session: session.execute(update(Job).values(lease_expires_at=1.0)))
        until(lambda: service.get(f"/jobs/{lease.job_id}")["status"] == "queued")


def test_a_failed_job_shows_its_error_and_hint(service, shapes):
    lease = service.claim(service.submit()["id"])
    problem = events.ErrorInfo(code="diverged", message="train/loss became nan at step 3.", hint="Lower it.")
    service.finish(lease, JobStatus.FAILED, end_reason=EndReason.DIVERGED, error=problem)
    job = service.get(f"/jobs/{lease.job_id}")
    assert (job["status"], job["is_terminal"], job["end_reason"]) == ("failed", True, "diverged")
    assert job["error"] == problem.model_dump()
    assert job["allowed_actions"] == ["resume", "retry", "delete"]


def test_a_queued_job_is_cancelled_immediately(service, shapes):
    job_id = service.submit()["id"]
    response = service.client.post(f"/jobs/{job_id}/cancel")
    assert response.status_code == 202
    assert (response.json()["status"], response.json()["end_reason"]) == ("cancelled", "cancelled_by_user")


def test_a_running_job_is_cancelled_by_its_worker(service, shapes):
    lease = service.claim(service.submit()["id"])
    for _ in range(2):
        response = service.client.post(f"/jobs/{lease.job_id}/cancel")
        assert (response.status_code, response.json()["status"]) == (202, "running")
    service.finish(lease)
    assert service.get(f"/jobs/{lease.job_id}")["status"] == "cancelled"


def test_a_job_that_has_ended_cannot_be_cancelled(service, shapes):
    job_id = service.succeeded_job()
    problem = service.assert_problem(service.client.post(f"/jobs/{job_id}/cancel"), 409, "action_not_allowed")
    assert problem["allowed_actions"] == ["delete"]
    service.assert_problem(service.client.post("/jobs/job_00000000000000000000000000/cancel"), 404, "job_not_found")


def test_concurrent_cancel_and_completion_agree_on_one_status(service, shapes):
    for _ in range(10):
        lease = service.claim(service.submit()["id"])
        with ThreadPoolExecutor(2) as pool:
            cancel = pool.submit(service.client.post, f"/jobs/{lease.job_id}/cancel")
            finish = pool.submit(service.finish, lease)
        finish.result()
        status = service.get(f"/jobs/{lease.job_id}")["status"]
        assert (cancel.result().status_code, status) in [(202, "cancelled"), (409, "succeeded")]
        with pytest.raises(LeaseLost):
            service.finish(lease)


def test_events_are_listed_without_log_lines(service, shapes):
    lease = service.claim(service.submit()["id"])
    service.record(lease, events.Phase(phase="loading"), events.Log(message="hello"), events.Rewound(to_step=0))
    service.finish(lease)
    events_listed = read_all_pages(service, f"/jobs/{lease.job_id}/events", limit=2)
    assert [event["type"] for event in events_listed] == ["status", "status", "phase", "rewound", "status"]
    assert [event["seq"] for event in events_listed] == [1, 2, 3, 5, 6]
    assert [event["data"]["status"] for event in events_listed if event["type"] == "status"] == [
        "queued",
        "running",
        "succeeded",
    ]
    assert all(event["at"].endswith("Z") for event in events_listed)


def test_logs_are_read_from_either_end(service, shapes):
    lease = service.claim(service.submit()["id"])
    service.record(lease, *(events.Log(level="warning", message=f"line {n}") for n in range(9)))
    path = f"/jobs/{lease.job_id}/logs"
    assert [line["message"] for line in read_all_pages(service, path, limit=4)] == [f"line {n}" for n in range(9)]
    tail = service.get(path, params={"tail": 2})["data"]
    assert [(line["level"], line["message"], line["attempt"]) for line in tail] == [
        ("warning", "line 7", 1),
        ("warning", "line 8", 1),
    ]


def test_a_long_queue_is_listed_quickly(service, shapes):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: service.submit(), range(60)))
    start = time.monotonic()
    assert len(service.get("/jobs?limit=200")["data"]) == 60
    assert time.monotonic() - start < 2
