"""Everything at once, 500 times. One of them again: FRS_SEED=17 python -m pytest tests/faults/test_faults_simulation.py"""

import os
from pathlib import Path

import oracle
import pytest
from _pytest.mark import ParameterSet
from simulation import STEPS, User, Worker, World
from sqlalchemy import select
from store_house import NewDatabase

from store.states import EndReason, JobStatus
from store.tables import Metric

SEEDS, CHUNK = 500, 50
FAST = 100
"""So many of them in every test run; a seed takes about 0.4 seconds of a CPU."""


def simulate(seed: int, url: str, folder: Path) -> World:
    world = World(seed, url, folder)
    for name in ("one", "another"):
        world.later(world.random.uniform(0, 10), User(world, name).step)
    for number in range(2):
        world.later(world.random.uniform(0, 20), Worker(world, f"worker-{number}").turn)
    world.run()
    return world


def judge(world: World) -> None:
    expected = oracle.Expected(acknowledged=world.acknowledged, deleted=world.deleted, accepted=world.accepted)
    oracle.check(world.database, world.artifacts, expected)
    for job in world.jobs():
        if world.last_wish.get(job.id) == "cancel":
            assert job.status == JobStatus.CANCELLED, f"{job.id} was to be cancelled and is {job.status}"
        if job.end_reason == EndReason.COMPLETED:
            with world.database.read() as session:
                curve = session.execute(select(Metric.step, Metric.value).where(Metric.job_id == job.id)).tuples()
                assert sorted(curve) == [(step, 1 / step) for step in range(1, STEPS + 1)], f"I4: {job.id}"


def chosen() -> list[ParameterSet]:
    if seed := os.environ.get("FRS_SEED"):
        return [pytest.param(range(int(seed), int(seed) + 1))]
    chunks = [range(first, first + CHUNK) for first in range(0, SEEDS, CHUNK)]
    return [pytest.param(chunk, marks=[pytest.mark.slow] if chunk[0] >= FAST else []) for chunk in chunks]


@pytest.mark.parametrize("seeds", chosen(), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_whatever_happens_nothing_is_lost(
    seeds: range, sqlite: NewDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power is cut here
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            world = simulate(seed, sqlite(folder), folder)
            judge(world)
        except Exception as error:
            again = f"FRS_SEED={seed} python -m pytest tests/faults/test_faults_simulation.py"
            raise AssertionError(f"Seed {seed} fails; to see it again: {again}") from error
        world.database.engine.dispose()
