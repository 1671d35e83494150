"""Processes are killed, asked to leave or fall silent at any step: F1, F16 and F20."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from service_harness import ServiceHarness, losses_of
from sqlalchemy import select
from worker_harness import WorkerHarness, until

from store.db.tables import Attempt
from store.states import AttemptEnd

OPEN = Callable[..., ServiceHarness]
STEPS, SECONDS = 40, 0.03
LEASE = {"heartbeat_seconds": 0.3, "fence_seconds": 1.5, "lease_seconds": 2.5}


def many(fast: int, slow: int) -> list[object]:
    marks = [pytest.mark.slow, pytest.mark.timeout(1200)]
    return [pytest.param(range(fast), id=str(fast)), pytest.param(range(fast, fast + slow), id=str(slow), marks=marks)]


@pytest.mark.parametrize("seeds", many(4, 30))
def test_after_kill_9_of_a_worker_another_one_goes_on(service_with: OPEN, seeds: range) -> None:
    """The supervisor and the thread that forks the trainer are that process too."""
    service_harness = service_with(**LEASE)
    worker = service_harness.worker()
    jobs = []
    for seed in seeds:
        jobs.append(submit_and_wait_for_a_step(service_harness, seed))
        worker.kill()
        until(lambda: service_harness.harness.trainers() == [], 2)
        worker = service_harness.worker()
        service_harness.until_ended(jobs, 60)
        attempts = attempts_of(service_harness.harness, jobs[-1])
        assert [attempt.end for attempt in attempts] == [AttemptEnd.LOST, AttemptEnd.SUCCEEDED], f"seed {seed}"
    nothing_is_lost_or_left(service_harness, jobs)


@pytest.mark.parametrize("seeds", many(4, 30))
def test_after_kill_9_of_a_trainer_the_worker_starts_another_one(service_with: OPEN, seeds: range) -> None:
    service_harness = service_with()
    service_harness.worker()
    jobs = []
    for seed in seeds:
        jobs.append(submit_and_wait_for_a_step(service_harness, seed))
        [trainer] = service_harness.harness.trainers()
        os.kill(trainer, signal.SIGKILL)
        service_harness.until_ended(jobs, 60)
        attempts = attempts_of(service_harness.harness, jobs[-1])
        assert [attempt.end for attempt in attempts] == [AttemptEnd.CRASHED, AttemptEnd.SUCCEEDED], f"seed {seed}"
    nothing_is_lost_or_left(service_harness, jobs)


@pytest.mark.parametrize("seeds", many(3, 20))
def test_sigterm_loses_no_step_and_uses_up_no_attempt(service_with: OPEN, seeds: range) -> None:
    service_harness = service_with()
    worker = service_harness.worker()
    jobs = []
    for seed in seeds:
        jobs.append(submit_and_wait_for_a_step(service_harness, seed))
        worker.terminate()
        assert worker.wait(30) == 0
        assert service_harness.harness.trainers() == []
        reached = max(service_harness.harness.steps(jobs[-1]))
        worker = service_harness.worker()
        service_harness.until_ended(jobs, 60)
        first, second = attempts_of(service_harness.harness, jobs[-1])
        assert (first.end, second.start_step) == (AttemptEnd.RELEASED, reached), f"seed {seed}"
    nothing_is_lost_or_left(service_harness, jobs)


@pytest.mark.parametrize(
    ("requested_action", "told", "seen"),
    [
        ({"sleep_in": "loading"}, "while loading", "in misbehave"),
        ({"hang_at": 7}, "while training", "in train_step"),
        ({"hang_saving": 10}, "while training", "in save"),
    ],
    ids=["setup", "step", "checkpoint"],
)
def test_a_trainer_that_falls_silent_ends_hung_and_shows_where(
    service_with: OPEN, requested_action: dict[str, object], told: str, seen: str
) -> None:
    service_harness = service_with(stall_timeout_seconds=1.5, step_stall_timeout_seconds=1.0)
    job_id = service_harness.harness.submit(steps=STEPS, **requested_action)
    service_harness.harness.supervisor().run()
    job = service_harness.harness.job(job_id)
    assert (job.status, job.end_reason) == ("failed", "hung")
    assert told in job.error["message"] and seen in job.error["message"], "the stack of where it hung"
    assert service_harness.harness.trainers() == [] and list(service_harness.settings.work_root.iterdir()) == []


def submit_and_wait_for_a_step(service_harness: ServiceHarness, seed: int) -> str:
    """Some time after a step chosen by the seed; the job is at work then."""
    chance = random.Random(seed)
    job_id = service_harness.harness.submit(steps=STEPS, seconds=SECONDS)
    service_harness.harness.until_step(job_id, chance.randint(1, STEPS // 2))
    time.sleep(chance.uniform(0, 0.1))
    return job_id


def attempts_of(harness: WorkerHarness, job_id: str) -> list[Attempt]:
    return list(harness.rows(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)))


def nothing_is_lost_or_left(service_harness: ServiceHarness, jobs: list[str]) -> None:
    service_harness.all_is_well(jobs, losses_of(STEPS))
    service_harness.no_jobs_but(jobs)
    with suppress(AssertionError):
        until(lambda: list(service_harness.settings.work_root.iterdir()) == [], 10)
    assert list(service_harness.settings.work_root.iterdir()) == [], "work folders of dead attempts"
