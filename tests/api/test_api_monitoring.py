"""GET /metrics, read as Prometheus reads it."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from frs import events
from store.db.database import time_of
from store.db.tables import Worker
from store.jobs import actions, lifecycle
from store.requests import worker_requests
from store.scheduling import worker_registry
from store.states import EndReason, JobStatus, RequestKind, WaitingReason

SEEN = "frs_worker_seen_seconds"
REASONS = ("waiting_for_storage", "waiting_for_device", "retry_backoff")


@pytest.fixture
def scrape(service):
    def read():
        """Values by name and labels."""
        response = service.client.get("/metrics")
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/plain")
        run_groups = text_string_to_metric_families(response.text)
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for run_group in run_groups
            for sample in run_group.samples
        }

    return read


def test_every_name_is_ours(scrape):
    assert {name for name, *_ in scrape() if not name.startswith("frs_")} == set()


def test_the_queue_and_the_jobs(service, shapes, scrape):
    assert scrape()["frs_queue_oldest_seconds",] == 0
    first, second, _ = (service.submit()["id"] for _ in range(3))
    service.settle(service.claim(first), JobStatus.FAILED, end_reason=EndReason.HUNG)
    service._do(actions.cancel, second)
    found = scrape()
    assert found["frs_queue_depth",] == 1
    assert found["frs_queue_oldest_seconds",] > 0
    assert [found["frs_jobs", ("status", status)] for status in ("queued", "running", "failed", "cancelled")] == [
        1,
        0,
        1,
        1,
    ]
    assert [found["frs_jobs_ended", ("reason", str(reason))] for reason in ("hung", "completed")] == [1, 0]


def test_leases_that_were_lost_and_trainers_that_crashed(service, shapes, scrape):
    service.submit()
    service._do(lifecycle.claim, "worker", -1.0)
    service._do(lifecycle.requeue_expired)
    lease = service._do(lifecycle.claim, "worker", 60.0)
    service._do(lifecycle.requeue, lease, attempt_counts=True)
    found = scrape()
    assert [found["frs_attempts", ("end", end)] for end in ("lost", "crashed", "succeeded")] == [1, 1, 0]


def test_how_fast_running_jobs_are(service, shapes, scrape):
    for rate in (4.0, 16.0, None):
        lease = service.claim(service.submit(schedule={"epochs": 1, "batch_size": 8})["id"])
        progress = events.Progress(epoch=1, epochs=1, step=1, steps=9, fraction=0.1, images_per_second=rate)
        service.record(lease, progress)
    found = scrape()
    assert found["frs_images_per_second",] == 20
    assert (found["frs_step_seconds", ("of", "mean")], found["frs_step_seconds", ("of", "slowest")]) == (1.25, 2.0)


def test_workers_and_their_gpus(service, scrape):
    gpus = [
        {"index": 0, "name": "A", "memory_total": 80, "memory_used": 60, "utilization": 97},
        {"index": 1, "name": "A", "memory_total": 80, "memory_used": None, "utilization": None},
    ]
    service._do(worker_registry.register, "w1", host="h", version="1", concurrency=2, gpus=gpus)
    service._do(worker_registry.register, "gone", host="h", version="1", concurrency=1, gpus=gpus)
    service._do(lambda session: setattr(session.get(Worker, "gone"), "seen_at", 1.0))
    found = scrape()
    assert (found["frs_workers_alive",], found["frs_worker_concurrency",]) == (1, 2)
    one, two = ((("gpu", gpu), ("host", "h"), ("worker", "w1")) for gpu in "01")
    assert found["frs_gpu_memory_used_bytes", *one] == 60
    assert found["frs_gpu_utilization_percent", *one] == 97
    assert found["frs_gpu_memory_bytes", *two] == 80
    assert ("frs_gpu_memory_used_bytes", *two) not in found


def test_what_each_worker_runs_and_how_long_it_is_silent(service, shapes, scrape):
    for name in ("w1", "w2"):
        service._do(worker_registry.register, name, host="h", version="1", concurrency=2, gpus=[])
    service._do(lambda session: setattr(session.get(Worker, "w2"), "seen_at", time_of(session) - 30))
    service.submit()
    service._do(lifecycle.claim, "w1", 60.0)
    found = scrape()
    one, two = ((("host", "h"), ("worker", name)) for name in ("w1", "w2"))
    assert (found["frs_worker_jobs", *one], found["frs_worker_jobs", *two]) == (1, 0)
    assert found["frs_worker_seen_seconds", *one] < 20
    assert 29 < found["frs_worker_seen_seconds", *two] < 50


def seen_by(service, scrape, **ages):
    """Which workers of one host are told, with how long they have been silent, each started when it was last seen."""
    for name, age in ages.items():
        service._do(worker_registry.register, name, host="h", version="1", concurrency=1, gpus=[])
        service._do(lambda session, name=name, age=age: move_back(session, name, age))
    told = {dict(labels)["worker"]: value for (name, *labels), value in scrape().items() if name == SEEN}
    return {name: round(value, -1) for name, value in told.items()}


def move_back(session, name, age):
    worker = session.get(Worker, name)
    worker.started_at = worker.seen_at = time_of(session) - age


def test_a_worker_that_died_is_told_for_an_hour(service, scrape):
    assert seen_by(service, scrape, dead=100) == {"dead": 100}
    assert scrape()["frs_workers_alive",] == 0
    assert seen_by(service, scrape, dead=3500) == {"dead": 3500}
    assert seen_by(service, scrape, dead=3700) == {}


def test_a_worker_that_ended_in_order_is_not_told(service, scrape):
    service._do(worker_registry.register, "w1", host="h", version="1", concurrency=1, gpus=[])
    service._do(worker_registry.deregister, "w1")
    assert seen_by(service, scrape) == {}


def test_a_worker_that_died_is_told_until_another_is_started_on_its_host(service, scrape):
    assert seen_by(service, scrape, older=200, dead=100) == {"dead": 100}
    assert seen_by(service, scrape, new=0) == {"new": 0}


def test_what_queued_jobs_wait_for_that_somebody_has_to_see_to(service, shapes, scrape):
    def waiting():
        found = scrape()
        return {reason: found["frs_jobs_waiting", ("reason", reason)] for reason in REASONS}

    service.submit(resources={"devices": 2})
    assert waiting() == {"waiting_for_storage": 0, "waiting_for_device": 0, "retry_backoff": 0}
    service._do(worker_registry.register, "w1", host="h", version="1", concurrency=1, gpus=[{"index": 0}])
    assert waiting() == {"waiting_for_storage": 0, "waiting_for_device": 1, "retry_backoff": 0}
    lease = service.claim(service.submit()["id"])
    told = {"reason": WaitingReason.STORAGE, "message": "The disk is full.", "attempt_counts": False}
    service._do(lifecycle.requeue, lease, **told)
    assert waiting() == {"waiting_for_storage": 1, "waiting_for_device": 1, "retry_backoff": 0}


def test_worker_requests_streams_and_wakeups(service, scrape):
    service._do(worker_requests.add, RequestKind.PROBE, {}, owner="admin")
    service.client.app.state.context.wakeups.dropped = 3
    found = scrape()
    assert found["frs_worker_requests", ("status", "queued")] == 1
    assert found["frs_streams_open",] == 0
    assert found["frs_hints_dropped_total",] == 3


def test_requests_are_told_by_route_never_by_path(service, shapes, scrape):
    job_id = service.submit()["id"]
    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}", "/nope/a", "/nope/b"):
        service.client.get(path)
    service.client.get("/jobs", headers={"Authorization": "Bearer wrong"})
    service.client.request("BREW", "/jobs")
    found = scrape()

    def count(route, method, status):
        return found["frs_http_requests_total", ("method", method), ("route", route), ("status", status)]

    assert count("/jobs/{job_id}", "GET", "200") == 2
    assert count("none", "GET", "404") == 2
    assert count("none", "GET", "401") == 1
    assert found["frs_http_request_seconds_count", ("method", "GET"), ("route", "/jobs/{job_id}")] == 2
    assert not any(job_id in str(key) or "nope" in str(key) or "BREW" in str(key) for key in found)


def test_it_is_for_admins_alone(service):
    body = {"name": "ann", "owner": "ann", "scopes": ["submit"]}
    token = service.client.post("/api-keys", json=body).json()["token"]
    refused = service.client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
    service.refused(refused, 403, "scope_missing")
