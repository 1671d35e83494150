"""F4 and F5: the broker is dead, restarted, flushed or frozen. Messages are wake-ups, so only time may be lost."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import pytest
from servers import Redis, free_port
from service_harness import ServiceHarness, stub_losses
from waiting import until

OpenService = Callable[..., ServiceHarness]
PICKUP = 10
NEVER = 120
"""A `poll_seconds` longer than any test: a job claimed sooner was announced by a wake-up."""


@pytest.mark.parametrize("count", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_jobs_posted_with_a_stopped_broker_are_accepted_immediately_and_succeed(
    redis: Redis, open_service: OpenService, count: int
) -> None:
    service = open_service(broker_url=redis.url, concurrency=2)
    service.start_api()
    redis.stop()
    began = time.monotonic()
    jobs = [service.post(steps=2) for _ in range(count)]
    assert time.monotonic() - began < count, "one that waited for the broker's timeouts would take 2 seconds or more"
    assert service.status_codes[-count:] == [201] * count
    service.start_worker()
    service.until_ended(jobs[:5])
    redis.start()
    service.until_ended(jobs, 120)
    service.assert_all_succeeded(jobs, stub_losses(2))
    service.assert_only_jobs(jobs)


def test_a_broker_flushed_every_second_delays_and_loses_nothing(redis: Redis, open_service: OpenService) -> None:
    service = open_service(broker_url=redis.url)
    service.start_api()
    service.start_worker()
    with every(1.0, redis.client.flushall):
        jobs = [service.post(steps=20, seconds=0.02) for _ in range(8)]
        service.until_ended(jobs)
    service.assert_all_succeeded(jobs, stub_losses(20))


def test_a_restarted_broker_delivers_wakeups_again(redis: Redis, open_service: OpenService) -> None:
    service = open_service(broker_url=redis.url, poll_seconds=NEVER)
    service.start_api()
    service.start_worker()
    taken_by_a_hint(service)
    redis.stop()
    redis.start()
    until(lambda: wakeup_is_received(service), 60)


@pytest.mark.parametrize("seconds", [6, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("when", [pytest.param("from the start", marks=pytest.mark.slow), "in mid-run"])
def test_a_frozen_broker_delays_no_job(redis: Redis, open_service: OpenService, when: str, seconds: int) -> None:
    service = open_service(broker_url=redis.url, poll_seconds=2)
    if when == "from the start":
        redis.freeze()
    service.start_api()
    worker = service.start_worker()
    first = service.post(steps=60, seconds=0.05)
    service.harness.until_status(first, "running")
    redis.freeze()
    frozen = time.monotonic()
    jobs = [first, service.post(steps=60, seconds=0.01)]
    service.harness.until_status(first, "succeeded", 30)
    service.harness.until_status(jobs[1], "succeeded", PICKUP + 10)
    time.sleep(max(0, frozen + seconds - time.monotonic()))  # the fault: the broker is frozen for so long
    redis.thaw()
    jobs.append(service.post(steps=60, seconds=0.01))
    service.harness.until_status(jobs[2], "succeeded", PICKUP + 10)
    service.assert_all_succeeded(jobs, stub_losses(60))
    assert worker.poll() is None


def test_polling_replaces_a_consumer_that_receives_nothing(redis: Redis, open_service: OpenService) -> None:
    """Somebody else eats every message, as a consumer does whose connection is half dead: none ever arrives."""
    service = open_service(broker_url=redis.url, poll_seconds=2)
    service.start_api()
    service.start_worker()
    with every(0.01, lambda: redis.client.delete("frs")):
        jobs = [service.post(steps=2) for _ in range(3)]
        service.until_ended(jobs, PICKUP + 20)
    service.assert_all_succeeded(jobs, stub_losses(2))


@pytest.mark.parametrize(
    "broker",
    [
        "runs",
        "was frozen from the start",
        pytest.param("is frozen", marks=pytest.mark.slow),
        pytest.param("is dead", marks=pytest.mark.slow),
    ],
)
def test_sigterm_ends_a_worker_within_its_grace_period_in_any_broker_state(
    redis: Redis, open_service: OpenService, broker: str
) -> None:
    service = open_service(broker_url=redis.url, grace_seconds=3)
    if broker == "was frozen from the start":
        redis.freeze()
    worker = service.start_worker()
    job_id = service.harness.submit(steps=10_000, seconds=0.02)
    service.harness.until_step(job_id, 5)
    if broker != "was frozen from the start":
        until(lambda: any(client["cmd"] == "brpop" for client in redis.client.client_list()))
    if broker == "is frozen":
        redis.freeze()
    if broker == "is dead":
        redis.stop()
    worker.terminate()
    assert worker.wait(3 + 10) == 0
    assert service.harness.job(job_id).status == "queued" and service.harness.trainers() == []
    assert service.harness.job(job_id).lease_owner is None


@pytest.mark.parametrize("broker", ["is frozen", pytest.param("is dead", marks=pytest.mark.slow)])
def test_sigterm_ends_the_api_in_any_broker_state(redis: Redis, open_service: OpenService, broker: str) -> None:
    service = open_service(broker_url=redis.url)
    api = service.start_api()
    service.post(steps=1)
    redis.freeze() if broker == "is frozen" else redis.stop()
    for _ in range(20):
        service.post(steps=1)
    api.terminate()
    api.wait(15)


def test_a_worker_without_any_broker_polls(open_service: OpenService) -> None:
    service = open_service(broker_url=f"redis://127.0.0.1:{free_port()}/0", poll_seconds=2)
    service.start_api()
    service.start_worker()
    began = time.monotonic()
    job_id = service.post(steps=2)
    service.harness.until_status(job_id, "succeeded", PICKUP + 20)
    assert time.monotonic() - began < PICKUP + 20
    service.assert_all_succeeded([job_id], stub_losses(2))


def taken_by_a_hint(service: ServiceHarness) -> None:
    """The worker has looked once already, and does not look again by itself."""
    first = service.post(steps=1)
    service.harness.until_status(first, "succeeded", 30)
    until(lambda: wakeup_is_received(service), 30)


def wakeup_is_received(service: ServiceHarness) -> bool:
    """Whether a job posted now is soon taken; a hint may be lost while connections are made anew."""
    with suppress(AssertionError):
        return bool(service.harness.until_status(service.post(steps=1), "succeeded", 2))
    return False


@contextmanager
def every(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    ended = Event()

    def run() -> None:
        while not ended.wait(seconds):
            act()

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
