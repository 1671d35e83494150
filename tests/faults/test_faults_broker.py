"""F4 and F5: the broker dead, restarted, flushed, frozen. It carries wakeups, so nothing but time may be lost."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest
from estate import Estate, losses_of
from servers import Redis, free_port
from worker_house import until

OPEN = Callable[..., Estate]
PICKUP = 10
NEVER = 120
"""A `poll_seconds` no test waits for: what is taken sooner was hinted at."""


def test_50_jobs_posted_to_a_stopped_broker_are_taken_on_at_once_and_all_finish(
    redis: Redis, estate_with: OPEN
) -> None:
    estate = estate_with(broker_url=redis.url, concurrency=2)
    estate.api()
    redis.stop()
    began = time.monotonic()
    jobs = [estate.post(steps=2) for _ in range(50)]
    assert time.monotonic() - began < 50, "one that waited for the broker's timeouts would take 2 seconds or more"
    assert estate.answers[-50:] == [201] * 50
    estate.worker()
    estate.until_ended(jobs[:10])
    redis.start()
    estate.until_ended(jobs, 120)
    estate.all_is_well(jobs, losses_of(2))
    estate.no_jobs_but(jobs)


def test_a_message_a_second_thrown_away_delays_and_loses_nothing(redis: Redis, estate_with: OPEN) -> None:
    estate = estate_with(broker_url=redis.url)
    estate.api()
    estate.worker()
    with every(1.0, redis.client.flushall):
        jobs = [estate.post(steps=20, seconds=0.02) for _ in range(8)]
        estate.until_ended(jobs)
    estate.all_is_well(jobs, losses_of(20))


def test_a_broker_that_comes_back_carries_hints_again(redis: Redis, estate_with: OPEN) -> None:
    estate = estate_with(broker_url=redis.url, poll_seconds=NEVER)
    estate.api()
    estate.worker()
    taken_by_a_hint(estate)
    redis.stop()
    redis.start()
    until(lambda: hint_is_heard(estate), 60)


@pytest.mark.parametrize("seconds", [6, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("when", ["from the start", "in mid-run"])
def test_a_frozen_broker_keeps_no_job_waiting(redis: Redis, estate_with: OPEN, when: str, seconds: int) -> None:
    estate = estate_with(broker_url=redis.url, poll_seconds=2)
    if when == "from the start":
        redis.freeze()
    estate.api()
    worker = estate.worker()
    first = estate.post(steps=60, seconds=0.05)
    estate.house.until_status(first, "running")
    redis.freeze()
    frozen = time.monotonic()
    jobs = [first, estate.post(steps=60, seconds=0.01)]
    estate.house.until_status(first, "succeeded", 30)
    estate.house.until_status(jobs[1], "succeeded", PICKUP + 10)
    while time.monotonic() < frozen + seconds:
        time.sleep(0.1)
    redis.thaw()
    jobs.append(estate.post(steps=60, seconds=0.01))
    estate.house.until_status(jobs[2], "succeeded", PICKUP + 10)
    estate.all_is_well(jobs, losses_of(60))
    assert worker.poll() is None


def test_a_deaf_consumer_is_made_up_for_by_looking(redis: Redis, estate_with: OPEN) -> None:
    """Somebody else eats every message, as a consumer does whose connection is half dead: none ever arrives."""
    estate = estate_with(broker_url=redis.url, poll_seconds=2)
    estate.api()
    estate.worker()
    with every(0.01, lambda: redis.client.delete("frs")):
        jobs = [estate.post(steps=2) for _ in range(3)]
        estate.until_ended(jobs, PICKUP + 20)
    estate.all_is_well(jobs, losses_of(2))


@pytest.mark.parametrize("broker", ["runs", "is frozen", "was frozen from the start", "is dead"])
def test_sigterm_ends_a_worker_in_its_grace_whatever_the_broker_does(
    redis: Redis, estate_with: OPEN, broker: str
) -> None:
    estate = estate_with(broker_url=redis.url, grace_seconds=3)
    if broker == "was frozen from the start":
        redis.freeze()
    worker = estate.worker()
    job_id = estate.house.submit(steps=10_000, seconds=0.02)
    estate.house.until_step(job_id, 5)
    time.sleep(2)  # for its consumer to be connected
    if broker == "is frozen":
        redis.freeze()
    if broker == "is dead":
        redis.stop()
    worker.terminate()
    assert worker.wait(3 + 10) == 0
    assert estate.house.job(job_id).status == "queued" and estate.house.trainers() == []
    assert estate.house.job(job_id).lease_owner is None


@pytest.mark.parametrize("broker", ["is frozen", "is dead"])
def test_sigterm_ends_the_api_whatever_the_broker_does(redis: Redis, estate_with: OPEN, broker: str) -> None:
    estate = estate_with(broker_url=redis.url)
    api = estate.api()
    estate.post(steps=1)
    redis.freeze() if broker == "is frozen" else redis.stop()
    for _ in range(20):
        estate.post(steps=1)
    api.terminate()
    api.wait(15)


def test_a_broker_that_never_was_is_a_worker_that_looks(estate_with: OPEN) -> None:
    estate = estate_with(broker_url=f"redis://127.0.0.1:{free_port()}/0", poll_seconds=2)
    estate.api()
    estate.worker()
    began = time.monotonic()
    job_id = estate.post(steps=2)
    estate.house.until_status(job_id, "succeeded", PICKUP + 20)
    assert time.monotonic() - began < PICKUP + 20
    estate.all_is_well([job_id], losses_of(2))


def taken_by_a_hint(estate: Estate) -> None:
    """The worker has looked once already, and does not look again by itself."""
    first = estate.post(steps=1)
    estate.house.until_status(first, "succeeded", 30)
    until(lambda: hint_is_heard(estate), 30)


def hint_is_heard(estate: Estate) -> bool:
    """Whether a job posted now is soon taken; a hint may be lost while connections are made anew."""
    job_id = estate.post(steps=1)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        if estate.house.job(job_id).status == "succeeded":
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
