"""F10: workers are stopped past their lease and continued, after another worker has claimed their job."""

import random
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from service_harness import ServiceHarness, stub_losses
from worker_harness import pause

STEPS = 50
LEASE = {"heartbeat_seconds": 0.3, "fence_seconds": 1.2, "lease_seconds": 2.0}
LONGEST = 1.6 * LEASE["lease_seconds"]
SLEEPS = 3
"""Stops per seed. The first is after a checkpoint, so no job dies three times in a row without one."""


@pytest.mark.parametrize(
    "seeds", [range(2), pytest.param(range(2, 55), marks=[pytest.mark.slow, pytest.mark.timeout(1800)])], ids=len
)
def test_a_worker_stopped_past_its_lease_changes_nothing(
    open_service: Callable[..., ServiceHarness], seeds: range
) -> None:
    service = open_service(**LEASE)
    workers = [service.start_worker(), service.start_worker()]
    done: list[str] = []
    for seed in seeds:
        jobs = [service.harness.submit(steps=STEPS, seconds=0.03, checkpoint_every=2) for _ in range(2)]
        service.harness.until_step(jobs[0], 5)
        put_to_sleep(service, workers, random.Random(seed))
        service.until_ended(jobs, 60)
        done += jobs
        try:
            service.assert_all_succeeded(done, stub_losses(STEPS))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


def put_to_sleep(service: ServiceHarness, workers: list[subprocess.Popen[bytes]], chance: random.Random) -> None:
    """Each for a time of its own, so that two may sleep at once."""
    asleep: list[tuple[float, subprocess.Popen[bytes]]] = []
    for _ in range(SLEEPS):
        time.sleep(chance.uniform(0.1, 1.0))  # the seed chooses the moment of the fault
        asleep = wake(asleep, time.monotonic())
        awake = [worker for worker in workers if worker not in [sleeper for _, sleeper in asleep]]
        if awake:
            sleeper = chance.choice(awake)
            pause(service.harness, sleeper)
            asleep.append((time.monotonic() + chance.uniform(0.2, LONGEST), sleeper))
    for until, sleeper in sorted(asleep, key=lambda entry: entry[0]):
        time.sleep(max(0, until - time.monotonic()))  # the fault: the worker is stopped for so long
        sleeper.send_signal(signal.SIGCONT)


def wake(
    asleep: list[tuple[float, subprocess.Popen[bytes]]], now: float
) -> list[tuple[float, subprocess.Popen[bytes]]]:
    """Those whose time has come; the others are left."""
    for until, sleeper in asleep:
        if until <= now:
            sleeper.send_signal(signal.SIGCONT)
    return [entry for entry in asleep if entry[0] > now]
