"""F1, F16 and F20: processes are killed, terminated or stalled at any step."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from service_harness import ServiceHarness, stub_losses
from sqlalchemy import select
from waiting import until
from worker_harness import WorkerHarness

from store.db.tables import Attempt
from store.states import AttemptEnd

OpenService = Callable[..., ServiceHarness]
STEPS, SECONDS = 40, 0.03
LEASE = {"heartbeat_seconds": 0.3, "fence_seconds": 1.5, "lease_seconds": 2.5}


def many(fast: int, slow: int) -> list[object]:
    marks = [pytest.mark.slow, pytest.mark.timeout(1200)]
    return [pytest.param(range(fast), id=str(fast)), pytest.param(range(fast, fast + slow), id=str(slow), marks=marks)]


@pytest.mark.parametrize("seeds", many(2, 32))
def test_another_worker_continues_after_kill_9_of_a_worker(open_service: OpenService, seeds: range) -> None:
    """The supervisor and the thread that forks the trainer are that process too."""
    service = open_service(**LEASE)
    worker = service.start_worker()
    jobs = []
    for seed in seeds:
        jobs.append(submit_and_wait_for_a_step(service, seed))
        worker.kill()
        until(lambda: service.harness.trainers() == [], 2)
        worker = service.start_worker()
        service.until_ended(jobs, 60)
        attempts = attempts_of(service.harness, jobs[-1])
        assert [attempt.end for attempt in attempts] == [AttemptEnd.LOST, AttemptEnd.SUCCEEDED], f"seed {seed}"
    nothing_is_lost_or_left(service, jobs)


@pytest.mark.parametrize("seeds", many(2, 32))
def test_the_worker_starts_another_trainer_after_kill_9_of_a_trainer(open_service: OpenService, seeds: range) -> None:
    service = open_service()
    service.start_worker()
    jobs = []
    for seed in seeds:
        jobs.append(submit_and_wait_for_a_step(service, seed))
        [trainer] = service.harness.trainers()
        os.kill(trainer, signal.SIGKILL)
        service.until_ended(jobs, 60)
        attempts = attempts_of(service.harness, jobs[-1])
        assert [attempt.end for attempt in attempts] == [AttemptEnd.CRASHED, AttemptEnd.SUCCEEDED], f"seed {seed}"
    nothing_is_lost_or_left(service, jobs)


@pytest.mark.parametrize("seeds", many(2, 21))
def test_sigterm_loses_no_step_and_counts_no_attempt(open_service: OpenService, seeds: range) -> None:
    service = open_service()
    worker = service.start_worker()
    jobs = []
    for seed in seeds:
        jobs.append(submit_and_wait_for_a_step(service, seed))
        worker.terminate()
        assert worker.wait(30) == 0
        assert service.harness.trainers() == []
        reached = max(service.harness.steps(jobs[-1]))
        worker = service.start_worker()
        service.until_ended(jobs, 60)
        first, second = attempts_of(service.harness, jobs[-1])
        assert (first.end, second.start_step) == (AttemptEnd.RELEASED, reached), f"seed {seed}"
    nothing_is_lost_or_left(service, jobs)


@pytest.mark.parametrize(
    ("options", "phase", "function"),
    [
        ({"sleep_in": "loading"}, "while loading", "in misbehave"),
        ({"hang_at": 7}, "while training", "in train_step"),
        ({"hang_saving": 10}, "while training", "in save"),
    ],
    ids=["setup", "step", "checkpoint"],
)
def test_a_stalled_trainer_ends_as_hung_with_its_stack(
    open_service: OpenService, options: dict[str, object], phase: str, function: str
) -> None:
    service = open_service(stall_timeout_seconds=1.5, step_stall_timeout_seconds=1.0)
    job_id = service.harness.submit(steps=STEPS, **options)
    service.harness.supervisor().run()
    job = service.harness.job(job_id)
    assert (job.status, job.end_reason) == ("failed", "hung")
    assert phase in job.error["message"] and function in job.error["message"], "the stack of where it hung"
    assert service.harness.trainers() == [] and list(service.settings.work_root.iterdir()) == []


def submit_and_wait_for_a_step(service: ServiceHarness, seed: int) -> str:
    """Some time after a step chosen by the seed; the job is at work then."""
    chance = random.Random(seed)
    job_id = service.harness.submit(steps=STEPS, seconds=SECONDS)
    service.harness.until_step(job_id, chance.randint(1, STEPS // 2))
    time.sleep(chance.uniform(0, 0.1))  # the seed chooses the moment of the fault
    return job_id


def attempts_of(harness: WorkerHarness, job_id: str) -> list[Attempt]:
    return list(harness.rows(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)))


def nothing_is_lost_or_left(service: ServiceHarness, jobs: list[str]) -> None:
    service.assert_all_succeeded(jobs, stub_losses(STEPS))
    service.assert_only_jobs(jobs)
    with suppress(AssertionError):
        until(lambda: list(service.settings.work_root.iterdir()) == [], 10)
    assert list(service.settings.work_root.iterdir()) == [], "work folders of dead attempts"
