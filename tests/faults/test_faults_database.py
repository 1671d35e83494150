"""F6 and F7: PostgreSQL restarted, its backends killed, commits of which nobody knows, no connection left."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Thread

import pytest
from estate import Estate, losses_of
from servers import Postgres
from sqlalchemy import func, select

from store.tables import Event as Row

OPEN = Callable[..., Estate]
STEPS = 20


@pytest.mark.parametrize(("restarts", "count"), [(2, 20), pytest.param(5, 100, marks=pytest.mark.slow)])
def test_postgresql_restarted_under_running_jobs_costs_none_of_them(
    postgres: Postgres, estate_with: OPEN, restarts: int, count: int
) -> None:
    estate = estate_with(database_url=postgres.url, slots=2)
    estate.api()
    for _ in range(2):
        estate.worker()
    with ThreadPoolExecutor(4) as users:
        posted = [users.submit(estate.post, steps=STEPS, seconds=0.05) for _ in range(count)]
        for _ in range(restarts):
            time.sleep(3)
            postgres.restart()
        jobs = [job.result() for job in posted]
    estate.until_ended(jobs, 60 + 3 * count)
    estate.all_is_well(jobs, losses_of(STEPS))
    nothing_is_told_twice(estate, jobs)


@pytest.mark.parametrize("count", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_connections_cut_again_and_again_lose_and_double_nothing(
    postgres: Postgres, estate_with: OPEN, count: int
) -> None:
    estate = estate_with(database_url=postgres.url, slots=2)
    estate.api()
    for _ in range(2):
        estate.worker()
    with cutting(postgres), ThreadPoolExecutor(4) as users:
        jobs = list(users.map(lambda _: estate.post(steps=STEPS, seconds=0.05), range(count)))
        estate.until_ended(jobs, 60 + 3 * count)
    estate.all_is_well(jobs, losses_of(STEPS))
    nothing_is_told_twice(estate, jobs)


def nothing_is_told_twice(estate: Estate, jobs: list[str]) -> None:
    """What an attempt says once stands once in the history, whatever became of the answer to its commit."""
    checkpoint = Row.data["step"].as_integer()
    for job_id in jobs:
        said = (Row.job_id == job_id, Row.type == "checkpoint", Row.data["kind"].as_string() == "training")
        steps = estate.house.rows(select(checkpoint).where(*said).group_by(Row.attempt, checkpoint))
        assert estate.house.rows(select(func.count()).where(*said)) == [len(steps)]
        for type_, phase in (("phase", "loading"), ("phase", "training"), ("evaluation", None)):
            of_it = (Row.job_id == job_id, Row.type == type_)
            of_it += (Row.data["phase"].as_string() == phase,) if phase else ()
            per_attempt = select(func.count()).where(*of_it).group_by(Row.attempt)
            assert set(estate.house.rows(per_attempt)) <= {1}, (job_id, type_, phase)


@contextmanager
def cutting(postgres: Postgres) -> Iterator[None]:
    """Every connection of the service cut, several times a second."""
    ended = Event()

    def run() -> None:
        while not ended.wait(0.3):
            postgres.kill_backends()

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
