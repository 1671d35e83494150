"""GET /metrics, parsed with the Prometheus parser."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from frs import events
from store.db.database import time_of
from store.db.tables import Job, Worker
from store.jobs import actions, lifecycle
from store.requests import worker_requests
from store.scheduling import worker_registry
from store.states import EndReason, JobStatus, RequestKind, WaitingReason

SEEN_SECONDS = "frs_worker_seen_seconds"
REASONS = ("waiting_for_storage", "waiting_for_device")


@pytest.fixture
def scrape(service):
    def read():
        """Return the values by name and labels."""
        response = service.client.get("/metrics")
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/plain")
        families = text_string_to_metric_families(response.text)
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    return read


def families(service):
    return list(text_string_to_metric_families(service.client.get("/metrics").text))


def test_every_metric_follows_the_naming_conventions_of_prometheus(service, shapes, scrape):
    register(service, "w1", gpus=[{"index": 0, "memory_total": 80, "memory_used": 60, "utilization": 97}])
    lease = service.claim(service.submit(schedule={"epochs": 1, "batch_size": 8})["id"])
    progress = events.Progress(epoch=1, epochs=1, step=1, steps=9, fraction=0.1, images_per_second=8.0)
    service.record(lease, progress)
    exported = [family for family in families(service) if not family.name.endswith("_created")]
    assert len(exported) > 20
    for family in exported:
        name = family.name.removesuffix("_total")
        assert re.fullmatch(r"frs_[a-z]+(_[a-z]+)*", name), name
        assert family.documentation, name
        assert not re.search(r"percent|milli|_ms\b|minutes|hours|kilo|_[kmg]i?b\b", name), name
        unit = re.search(r"(?<!per_)(seconds|bytes|ratio)", name)
        assert unit is None or name.endswith(unit[0]), name
        is_counter = family.type == "counter"
        assert all(sample.name.endswith("_total") == is_counter for sample in family.samples), name


def test_every_ratio_is_between_0_and_1(service):
    register(service, "w1", gpus=[{"index": 0, "memory_total": 80, "memory_used": 60, "utilization": 97}])
    ratios = [sample for family in families(service) if family.name.endswith("_ratio") for sample in family.samples]
    assert ratios and all(0 <= sample.value <= 1 for sample in ratios)


def test_the_queue_and_jobs_are_counted(service, shapes, scrape):
    assert scrape()["frs_queue_oldest_seconds",] == 0
    first, second, _ = (service.submit()["id"] for _ in range(3))
    service.finish(service.claim(first), JobStatus.FAILED, end_reason=EndReason.HUNG)
    service.transact(actions.cancel, second)
    metrics = scrape()
    assert metrics["frs_queue_depth",] == 1
    assert metrics["frs_queue_oldest_seconds",] > 0
    assert [metrics["frs_jobs", ("status", status)] for status in ("queued", "running", "failed", "cancelled")] == [
        1,
        0,
        1,
        1,
    ]
    assert [metrics["frs_jobs_ended_total", ("reason", str(reason))] for reason in ("hung", "completed")] == [1, 0]


def test_lost_and_crashed_attempts_are_counted(service, shapes, scrape):
    scrape()
    service.submit()
    service.transact(lifecycle.claim, "worker", -1.0)
    service.transact(lifecycle.requeue_expired)
    lease = service.transact(lifecycle.claim, "worker", 60.0)
    service.transact(lifecycle.requeue, lease, attempt_counts=True)
    metrics = scrape()
    assert [metrics["frs_attempts_ended_total", ("end", end)] for end in ("lost", "crashed", "succeeded")] == [1, 1, 0]


def test_ends_before_the_first_scrape_are_counted(service, shapes, scrape):
    service.succeeded_job()
    metrics = scrape()
    assert metrics["frs_jobs_ended_total", ("reason", "completed")] == 1
    assert metrics["frs_attempts_ended_total", ("end", "succeeded")] == 1


def test_the_count_of_ended_jobs_never_shrinks(service, shapes, scrape):
    completed = ("frs_jobs_ended_total", ("reason", "completed"))
    assert scrape()[completed] == 0
    job_id = service.succeeded_job()
    assert [scrape()[completed], scrape()[completed]] == [1, 1]
    assert service.client.delete(f"/jobs/{job_id}").status_code == 204
    assert scrape()[completed] == 1
    service.succeeded_job()
    assert scrape()[completed] == 2


def test_the_speed_of_running_jobs_is_measured(service, shapes, scrape):
    for rate, batch_size, accumulate in ((4.0, 8, 1), (16.0, 2, 4), (None, 8, 1)):
        schedule = {"epochs": 1, "batch_size": batch_size, "accumulate": accumulate}
        lease = service.claim(service.submit(schedule=schedule)["id"])
        progress = events.Progress(epoch=1, epochs=1, step=1, steps=9, fraction=0.1, images_per_second=rate)
        service.record(lease, progress)
    metrics = scrape()
    assert metrics["frs_images_per_second",] == 20
    assert (metrics["frs_step_mean_seconds",], metrics["frs_step_max_seconds",]) == (1.25, 2.0)


def test_workers_and_gpus_are_measured(service, scrape):
    gpus = [
        {"index": 0, "name": "A", "memory_total": 80, "memory_used": 60, "utilization": 97},
        {"index": 1, "name": "A", "memory_total": 80, "memory_used": None, "utilization": None},
    ]
    register(service, "w1", gpus=gpus)
    register(service, "expired", gpus=gpus, age=10_000)
    metrics = scrape()
    assert (metrics["frs_workers_alive",], metrics["frs_worker_concurrency",]) == (1, 2)
    first, second = ((("gpu", gpu), ("host", "h"), ("worker", "w1")) for gpu in "01")
    assert metrics["frs_gpu_memory_used_bytes", *first] == 60
    assert metrics["frs_gpu_utilization_ratio", *first] == 0.97
    assert metrics["frs_gpu_memory_bytes", *second] == 80
    assert ("frs_gpu_memory_used_bytes", *second) not in metrics


def test_jobs_and_heartbeat_age_are_measured_per_worker(service, shapes, scrape):
    register(service, "w1")
    register(service, "w2", age=30)
    service.submit()
    service.transact(lifecycle.claim, "w1", 60.0)
    metrics = scrape()
    first, second = ((("host", "h"), ("worker", name)) for name in ("w1", "w2"))
    assert (metrics["frs_worker_jobs", *first], metrics["frs_worker_jobs", *second]) == (1, 0)
    assert metrics["frs_worker_seen_seconds", *first] < 20
    assert 29 < metrics["frs_worker_seen_seconds", *second] < 50


def test_a_worker_on_which_one_job_after_another_fails_is_reported(service, shapes, scrape):
    register(service, "w1")

    def fail(*, until_poison=False):
        service.submit()
        for _ in range(2 if until_poison else 1):
            service.transact(lifecycle.requeue, service.transact(lifecycle.claim, "w1", 60.0), attempt_counts=True)

    def reported():
        assert service.get("/workers")["data"][0]["failures_in_a_row"] == scrape()[metric]
        return scrape()[metric]

    metric = ("frs_worker_failures_in_a_row", ("host", "h"), ("worker", "w1"))
    assert reported() == 0
    fail(until_poison=True)
    assert reported() == 1, "two crashes of one job count once"
    service.transact(lifecycle.claim, "another worker", 60.0)
    fail()
    assert reported() == 2
    service.finish(service.transact(lifecycle.claim, "w1", 60.0))
    assert reported() == 0


def register(service, id, *, name=None, gpus=(), age=0.0):
    """Register a worker of host `h`, named like its id unless `name` is given, that was started and last seen then."""

    def change(session):
        worker_registry.register(session, id, host="h", version="1", concurrency=2, gpus=list(gpus))
        worker = session.get(Worker, id, populate_existing=True)
        worker.name, worker.started_at = name or id, time_of(session) - age
        worker.seen_at = worker.started_at

    service.transact(change)


def seen_workers(service, scrape, **ages):
    """Return the exported heartbeat age of each worker after registering workers with these ages."""
    for name, age in ages.items():
        register(service, name, age=age)
    exported = {dict(labels)["worker"]: value for (name, *labels), value in scrape().items() if name == SEEN_SECONDS}
    return {name: round(value, -1) for name, value in exported.items()}


def test_a_restarted_worker_keeps_its_time_series(service, scrape):
    gpu = {"index": 0, "name": "A", "memory_total": 80, "memory_used": 60, "utilization": 97}
    register(service, "h:1:aaaa", name="h-0", gpus=[gpu], age=20)
    before = {key for key in scrape() if ("worker", "h-0") in key}
    register(service, "h:2:bbbb", name="h-0", gpus=[gpu])
    assert {key for key in scrape() if any(label == "worker" for label, *_ in key[1:])} == before
    assert seen_workers(service, scrape) == {"h-0": 0}


def test_a_worker_without_a_name_is_exported_under_its_host(service, scrape):
    service.transact(worker_registry.register, "h:1:aaaa", host="h", version="1", concurrency=1, gpus=[])
    assert seen_workers(service, scrape) == {"h": 0}


def test_a_dead_worker_is_exported_for_an_hour(service, scrape):
    assert seen_workers(service, scrape, dead=100) == {"dead": 100}
    assert scrape()["frs_workers_alive",] == 0
    assert seen_workers(service, scrape, dead=3500) == {"dead": 3500}
    assert seen_workers(service, scrape, dead=3700) == {}


def test_a_deregistered_worker_is_not_exported(service, scrape):
    service.transact(worker_registry.register, "w1", host="h", version="1", concurrency=1, gpus=[])
    service.transact(worker_registry.deregister, "w1")
    assert seen_workers(service, scrape) == {}


def test_a_dead_worker_is_exported_until_another_starts_under_its_name(service, scrape):
    register(service, "a:1:aaaa", name="a", age=200)
    assert seen_workers(service, scrape, b=100) == {"a": 200, "b": 100}
    register(service, "a:2:bbbb", name="a")
    assert seen_workers(service, scrape) == {"a": 0, "b": 100}


def test_waiting_reasons_that_need_an_operator_are_counted(service, shapes, scrape):
    def waiting():
        metrics = scrape()
        return {reason: metrics["frs_jobs_waiting", ("reason", reason)] for reason in REASONS}

    service.submit(resources={"devices": 2})
    assert waiting() == {"waiting_for_storage": 0, "waiting_for_device": 0}
    service.transact(worker_registry.register, "w1", host="h", version="1", concurrency=1, gpus=[{"index": 0}])
    assert waiting() == {"waiting_for_storage": 0, "waiting_for_device": 1}
    pair = {"host": "h", "version": "1", "concurrency": 1, "gpus": [{"index": 0}] * 4, "nodes": 2}
    service.transact(worker_registry.register, "pair", **pair)
    assert waiting()["waiting_for_device"] == 1, "a worker for jobs on two hosts does not count for others"
    service.transact(worker_registry.deregister, "pair")
    lease = service.claim(service.submit()["id"])
    requeue = {"reason": WaitingReason.STORAGE, "message": "The disk is full.", "delay": 60, "attempt_counts": False}
    service.transact(lifecycle.requeue, lease, **requeue)
    assert waiting() == {"waiting_for_storage": 1, "waiting_for_device": 1}
    service.transact(lambda session: session.execute(update(Job).values(not_before=1.0)))
    assert waiting()["waiting_for_storage"] == 0, "its delay is over: it waits for a worker"
    missing = [{"key": "storage", "owner": "", "message": "has 5 MiB of free disk space"}]
    registered = {"host": "h", "version": "1", "concurrency": 1, "gpus": [{"index": 0}], "missing": missing}
    service.transact(worker_registry.register, "w1", **registered)
    assert waiting()["waiting_for_storage"] == 2


def test_worker_requests_streams_and_wakeups_are_counted(service, scrape):
    service.transact(worker_requests.add, RequestKind.PROBE, {}, owner="admin")
    service.client.app.state.context.wakeups.dropped = 3
    metrics = scrape()
    assert metrics["frs_worker_requests", ("status", "queued")] == 1
    assert metrics["frs_streams_open",] == 0
    assert metrics["frs_wakeups_dropped_total",] == 3


def test_requests_are_counted_by_route_and_not_by_path(service, shapes, scrape):
    job_id = service.submit()["id"]
    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}", "/nope/a", "/nope/b"):
        service.client.get(path)
    service.client.get("/jobs", headers={"Authorization": "Bearer wrong"})
    service.client.request("BREW", "/jobs")
    metrics = scrape()

    def count(route, method, status):
        return metrics["frs_http_requests_total", ("method", method), ("route", route), ("status", status)]

    assert count("/jobs/{job_id}", "GET", "200") == 2
    assert count("none", "GET", "404") == 2
    assert count("none", "GET", "401") == 1
    assert metrics["frs_http_request_seconds_count", ("method", "GET"), ("route", "/jobs/{job_id}")] == 2
    assert not any(job_id in str(key) or "nope" in str(key) or "BREW" in str(key) for key in metrics)


def headers_of_key(service, scopes):
    body = {"name": "ann", "owner": "ann", "scopes": scopes}
    return {"Authorization": f"Bearer {service.client.post('/api-keys', json=body).json()['token']}"}


def test_metrics_require_the_scope_metrics(service):
    response = service.client.get("/metrics", headers=headers_of_key(service, ["submit", "priority"]))
    service.assert_problem(response, 403, "scope_missing")


def test_a_metrics_key_reads_metrics_and_nothing_else(service):
    headers = headers_of_key(service, ["metrics"])
    assert service.client.get("/metrics", headers=headers).status_code == 200
    for path in ("/jobs", "/queue", "/workers", "/datasets", "/recipes"):
        service.assert_problem(service.client.get(path, headers=headers), 403, "scope_missing")
