"""Processes are killed, asked to leave or fall silent at any step: F1, F16 and F20."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from estate import Estate, losses_of
from sqlalchemy import select
from worker_house import House, until

from store.db.tables import Attempt
from store.states import AttemptEnd

OPEN = Callable[..., Estate]
STEPS, SECONDS = 40, 0.03
LEASE = {"heartbeat_seconds": 0.3, "fence_seconds": 1.5, "lease_seconds": 2.5}


def many(fast: int, slow: int) -> list[object]:
    marks = [pytest.mark.slow, pytest.mark.timeout(1200)]
    return [pytest.param(range(fast), id=str(fast)), pytest.param(range(fast, fast + slow), id=str(slow), marks=marks)]


@pytest.mark.parametrize("seeds", many(4, 30))
def test_after_kill_9_of_a_worker_another_one_goes_on(estate_with: OPEN, seeds: range) -> None:
    """The supervisor and the thread that forks the trainer are that process too."""
    estate = estate_with(**LEASE)
    worker = estate.worker()
    jobs = []
    for seed in seeds:
        jobs.append(submit_and_wait_for_a_step(estate, seed))
        worker.kill()
        until(lambda: estate.house.trainers() == [], 2)
        worker = estate.worker()
        estate.until_ended(jobs, 60)
        attempts = attempts_of(estate.house, jobs[-1])
        assert [attempt.end for attempt in attempts] == [AttemptEnd.LOST, AttemptEnd.SUCCEEDED], f"seed {seed}"
    nothing_is_lost_or_left(estate, jobs)


@pytest.mark.parametrize("seeds", many(4, 30))
def test_after_kill_9_of_a_trainer_the_worker_starts_another_one(estate_with: OPEN, seeds: range) -> None:
    estate = estate_with()
    estate.worker()
    jobs = []
    for seed in seeds:
        jobs.append(submit_and_wait_for_a_step(estate, seed))
        [trainer] = estate.house.trainers()
        os.kill(trainer, signal.SIGKILL)
        estate.until_ended(jobs, 60)
        attempts = attempts_of(estate.house, jobs[-1])
        assert [attempt.end for attempt in attempts] == [AttemptEnd.CRASHED, AttemptEnd.SUCCEEDED], f"seed {seed}"
    nothing_is_lost_or_left(estate, jobs)


@pytest.mark.parametrize("seeds", many(3, 20))
def test_sigterm_loses_no_step_and_uses_up_no_attempt(estate_with: OPEN, seeds: range) -> None:
    estate = estate_with()
    worker = estate.worker()
    jobs = []
    for seed in seeds:
        jobs.append(submit_and_wait_for_a_step(estate, seed))
        worker.terminate()
        assert worker.wait(30) == 0
        assert estate.house.trainers() == []
        reached = max(estate.house.steps(jobs[-1]))
        worker = estate.worker()
        estate.until_ended(jobs, 60)
        first, second = attempts_of(estate.house, jobs[-1])
        assert (first.end, second.start_step) == (AttemptEnd.RELEASED, reached), f"seed {seed}"
    nothing_is_lost_or_left(estate, jobs)


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
    estate_with: OPEN, requested_action: dict[str, object], told: str, seen: str
) -> None:
    estate = estate_with(stall_timeout_seconds=1.5, step_stall_timeout_seconds=1.0)
    job_id = estate.house.submit(steps=STEPS, **requested_action)
    estate.house.supervisor().run()
    job = estate.house.job(job_id)
    assert (job.status, job.end_reason) == ("failed", "hung")
    assert told in job.error["message"] and seen in job.error["message"], "the stack of where it hung"
    assert estate.house.trainers() == [] and list(estate.settings.work_root.iterdir()) == []


def submit_and_wait_for_a_step(estate: Estate, seed: int) -> str:
    """Some time after a step chosen by the seed; the job is at work then."""
    chance = random.Random(seed)
    job_id = estate.house.submit(steps=STEPS, seconds=SECONDS)
    estate.house.until_step(job_id, chance.randint(1, STEPS // 2))
    time.sleep(chance.uniform(0, 0.1))
    return job_id


def attempts_of(house: House, job_id: str) -> list[Attempt]:
    return list(house.rows(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)))


def nothing_is_lost_or_left(estate: Estate, jobs: list[str]) -> None:
    estate.all_is_well(jobs, losses_of(STEPS))
    estate.no_jobs_but(jobs)
    with suppress(AssertionError):
        until(lambda: list(estate.settings.work_root.iterdir()) == [], 10)
    assert list(estate.settings.work_root.iterdir()) == [], "work folders of dead attempts"
