"""F4 and F5: the broker dead, restarted, flushed, frozen. It carries wakeups, so nothing but time may be lost."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest
from servers import Redis, free_port
from service_harness import ServiceHarness, losses_of
from worker_harness import until

OPEN = Callable[..., ServiceHarness]
PICKUP = 10
NEVER = 120
"""A `poll_seconds` no test waits for: what is taken sooner was hinted at."""


def test_50_jobs_posted_to_a_stopped_broker_are_taken_on_at_once_and_all_finish(
    redis: Redis, service_with: OPEN
) -> None:
    service_harness = service_with(broker_url=redis.url, concurrency=2)
    service_harness.api()
    redis.stop()
    began = time.monotonic()
    jobs = [service_harness.post(steps=2) for _ in range(50)]
    assert time.monotonic() - began < 50, "one that waited for the broker's timeouts would take 2 seconds or more"
    assert service_harness.answers[-50:] == [201] * 50
    service_harness.worker()
    service_harness.until_ended(jobs[:10])
    redis.start()
    service_harness.until_ended(jobs, 120)
    service_harness.all_is_well(jobs, losses_of(2))
    service_harness.no_jobs_but(jobs)


def test_a_message_a_second_thrown_away_delays_and_loses_nothing(redis: Redis, service_with: OPEN) -> None:
    service_harness = service_with(broker_url=redis.url)
    service_harness.api()
    service_harness.worker()
    with every(1.0, redis.client.flushall):
        jobs = [service_harness.post(steps=20, seconds=0.02) for _ in range(8)]
        service_harness.until_ended(jobs)
    service_harness.all_is_well(jobs, losses_of(20))


def test_a_broker_that_comes_back_carries_hints_again(redis: Redis, service_with: OPEN) -> None:
    service_harness = service_with(broker_url=redis.url, poll_seconds=NEVER)
    service_harness.api()
    service_harness.worker()
    taken_by_a_hint(service_harness)
    redis.stop()
    redis.start()
    until(lambda: hint_is_heard(service_harness), 60)


@pytest.mark.parametrize("seconds", [6, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("when", ["from the start", "in mid-run"])
def test_a_frozen_broker_keeps_no_job_waiting(redis: Redis, service_with: OPEN, when: str, seconds: int) -> None:
    service_harness = service_with(broker_url=redis.url, poll_seconds=2)
    if when == "from the start":
        redis.freeze()
    service_harness.api()
    worker = service_harness.worker()
    first = service_harness.post(steps=60, seconds=0.05)
    service_harness.harness.until_status(first, "running")
    redis.freeze()
    frozen = time.monotonic()
    jobs = [first, service_harness.post(steps=60, seconds=0.01)]
    service_harness.harness.until_status(first, "succeeded", 30)
    service_harness.harness.until_status(jobs[1], "succeeded", PICKUP + 10)
    while time.monotonic() < frozen + seconds:
        time.sleep(0.1)
    redis.thaw()
    jobs.append(service_harness.post(steps=60, seconds=0.01))
    service_harness.harness.until_status(jobs[2], "succeeded", PICKUP + 10)
    service_harness.all_is_well(jobs, losses_of(60))
    assert worker.poll() is None


def test_a_deaf_consumer_is_made_up_for_by_looking(redis: Redis, service_with: OPEN) -> None:
    """Somebody else eats every message, as a consumer does whose connection is half dead: none ever arrives."""
    service_harness = service_with(broker_url=redis.url, poll_seconds=2)
    service_harness.api()
    service_harness.worker()
    with every(0.01, lambda: redis.client.delete("frs")):
        jobs = [service_harness.post(steps=2) for _ in range(3)]
        service_harness.until_ended(jobs, PICKUP + 20)
    service_harness.all_is_well(jobs, losses_of(2))


@pytest.mark.parametrize("broker", ["runs", "is frozen", "was frozen from the start", "is dead"])
def test_sigterm_ends_a_worker_in_its_grace_whatever_the_broker_does(
    redis: Redis, service_with: OPEN, broker: str
) -> None:
    service_harness = service_with(broker_url=redis.url, grace_seconds=3)
    if broker == "was frozen from the start":
        redis.freeze()
    worker = service_harness.worker()
    job_id = service_harness.harness.submit(steps=10_000, seconds=0.02)
    service_harness.harness.until_step(job_id, 5)
    time.sleep(2)  # for its consumer to be connected
    if broker == "is frozen":
        redis.freeze()
    if broker == "is dead":
        redis.stop()
    worker.terminate()
    assert worker.wait(3 + 10) == 0
    assert service_harness.harness.job(job_id).status == "queued" and service_harness.harness.trainers() == []
    assert service_harness.harness.job(job_id).lease_owner is None


@pytest.mark.parametrize("broker", ["is frozen", "is dead"])
def test_sigterm_ends_the_api_whatever_the_broker_does(redis: Redis, service_with: OPEN, broker: str) -> None:
    service_harness = service_with(broker_url=redis.url)
    api = service_harness.api()
    service_harness.post(steps=1)
    redis.freeze() if broker == "is frozen" else redis.stop()
    for _ in range(20):
        service_harness.post(steps=1)
    api.terminate()
    api.wait(15)


def test_a_broker_that_never_was_is_a_worker_that_looks(service_with: OPEN) -> None:
    service_harness = service_with(broker_url=f"redis://127.0.0.1:{free_port()}/0", poll_seconds=2)
    service_harness.api()
    service_harness.worker()
    began = time.monotonic()
    job_id = service_harness.post(steps=2)
    service_harness.harness.until_status(job_id, "succeeded", PICKUP + 20)
    assert time.monotonic() - began < PICKUP + 20
    service_harness.all_is_well([job_id], losses_of(2))


def taken_by_a_hint(service_harness: ServiceHarness) -> None:
    """The worker has looked once already, and does not look again by itself."""
    first = service_harness.post(steps=1)
    service_harness.harness.until_status(first, "succeeded", 30)
    until(lambda: hint_is_heard(service_harness), 30)


def hint_is_heard(service_harness: ServiceHarness) -> bool:
    """Whether a job posted now is soon taken; a hint may be lost while connections are made anew."""
    job_id = service_harness.post(steps=1)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        if service_harness.harness.job(job_id).status == "succeeded":
            return True
        time.sleep(0.05)
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
