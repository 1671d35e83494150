"""F24: all faults together, for 100 seeds, in full 5,100, and with workers that a scheduler starts, 50 and 550.

`FRS_SEED=17 python -m pytest FILE` replays one seed.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import oracle
import pytest
from _pytest.mark import ParameterSet
from database_faults import without_fsync
from database_harness import NewDatabase
from simulation import STEPS, Clock, Scheduler, SimulatedService, User, Worker
from sqlalchemy import select

from store.db.database import Database, open_database
from store.db.tables import Metric
from store.states import EndReason, JobStatus

FAST, CHUNK = 100, 50
SLOW, LARGE_CHUNK = 5100, 500
SCHEDULED_FAST, SCHEDULED_SLOW = 50, 550
Start = Callable[[SimulatedService], None]


def start_workers(service: SimulatedService) -> None:
    for number in range(2):
        service.schedule(service.random.uniform(0, 20), Worker(service, f"worker-{number}").turn)


def start_scheduler(service: SimulatedService) -> None:
    service.schedule(service.random.uniform(0, 20), Scheduler(service).step)


def simulate(seed: int, database: Database, clock: Clock, folder: Path, start: Start) -> SimulatedService:
    service = SimulatedService(seed, database, clock, folder)
    for name in ("one", "another"):
        service.schedule(service.random.uniform(0, 10), User(service, name).step)
    start(service)
    service.run()
    return service


def check_service(service: SimulatedService) -> None:
    expected = oracle.Expected(acknowledged=service.acknowledged, deleted=service.deleted, accepted=service.accepted)
    oracle.check(service.database, service.artifacts, expected)
    for job in service.jobs():
        if service.last_request.get(job.id) == "cancel":
            assert job.status == JobStatus.CANCELLED, f"{job.id} was to be cancelled and is {job.status}"
        if job.end_reason == EndReason.COMPLETED:
            with service.database.read() as session:
                curve = session.execute(select(Metric.step, Metric.value).where(Metric.job_id == job.id)).tuples()
                assert sorted(curve) == [(step, 1 / step) for step in range(1, STEPS + 1)], f"I4: {job.id}"


def chosen(fast_seeds: int, all_seeds: int) -> list[ParameterSet]:
    if seed := os.environ.get("FRS_SEED"):
        return [pytest.param(range(int(seed), int(seed) + 1))]
    fast = [pytest.param(range(first, first + CHUNK)) for first in range(0, fast_seeds, CHUNK)]
    more = [range(first, first + LARGE_CHUNK) for first in range(fast_seeds, all_seeds, LARGE_CHUNK)]
    return [*fast, *(pytest.param(chunk, marks=pytest.mark.slow) for chunk in more)]


def cut_no_power() -> None:
    os.fsync = lambda _: None


def try_seeds(seeds: range, url: str, folder: Path, start: Start) -> int:
    clock = Clock()
    database = without_fsync(open_database(url, clock=clock))
    for seed in seeds:
        own = folder / str(seed)
        own.mkdir()
        try:
            check_service(simulate(seed, database, clock, own, start))
        except Exception as error:
            again = f"FRS_SEED={seed} python -m pytest tests/faults/test_faults_simulation.py"
            raise AssertionError(f"Seed {seed} fails; to see it again: {again}") from error
        shutil.rmtree(own)
    database.engine.dispose()
    return len(seeds)


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, get_context("spawn"), cut_no_power) as pool:
        yield pool


def try_all(seeds: range, processes: ProcessPoolExecutor, sqlite: NewDatabase, folder: Path, start: Start) -> None:
    halves = seeds[::2], seeds[1::2]
    folders = folder / "even", folder / "odd"
    for half_folder in folders:
        half_folder.mkdir()
    tried = processes.map(try_seeds, halves, map(sqlite, folders), folders, [start] * 2)
    assert sum(tried) == len(seeds)


@pytest.mark.parametrize("seeds", chosen(FAST, SLOW), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_no_combination_of_faults_loses_anything(
    seeds: range, processes: ProcessPoolExecutor, sqlite: NewDatabase, tmp_path: Path
) -> None:
    try_all(seeds, processes, sqlite, tmp_path, start_workers)


@pytest.mark.parametrize("seeds", chosen(SCHEDULED_FAST, SCHEDULED_SLOW), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_a_scheduler_that_kills_duplicates_and_delays_workers_loses_nothing(
    seeds: range, processes: ProcessPoolExecutor, sqlite: NewDatabase, tmp_path: Path
) -> None:
    try_all(seeds, processes, sqlite, tmp_path, start_scheduler)
