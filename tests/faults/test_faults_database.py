"""F6 and F7: PostgreSQL is restarted, its backends are killed, commits are lost, no connection is free."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from threading import Event, Thread

import psycopg
import pytest
from servers import Postgres
from service_harness import ServiceHarness, stub_losses
from sqlalchemy import Engine, PoolProxiedConnection, func, select
from waiting import until

from store.db.database import POOL
from store.db.tables import Event as Row
from store.db.tables import Metric

OpenService = Callable[..., ServiceHarness]
STEPS = 20
ANSWERED_SECONDS = 30
"""Limit of the wait for the answers of requests without a connection; the database hangs for as long."""
CONNECTIONS = POOL["pool_size"] + POOL["max_overflow"]
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@pytest.mark.parametrize(("restarts", "many"), [(2, 20), pytest.param(5, 100, marks=pytest.mark.slow)])
def test_running_jobs_survive_a_restart_of_postgresql(
    postgres: Postgres, open_service: OpenService, restarts: int, many: int
) -> None:
    service = open_service(database_url=postgres.url, concurrency=2)
    service.start_api()
    for _ in range(2):
        service.start_worker()
    with ThreadPoolExecutor(4) as users:
        posted = [users.submit(service.post, steps=STEPS, seconds=0.05) for _ in range(many)]
        trainers: set[int] = set()
        for _ in range(restarts):
            until(lambda: set(service.harness.trainers()) - trainers, 60)  # a job has started since the last restart
            trainers.update(service.harness.trainers())
            postgres.restart()
        jobs = [job.result() for job in posted]
    service.until_ended(jobs, 60 + 3 * many)
    service.assert_all_succeeded(jobs, stub_losses(STEPS))
    service.assert_only_jobs(jobs)
    assert_no_duplicates(service, jobs)


@pytest.mark.parametrize("many", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_repeatedly_cut_connections_lose_and_duplicate_nothing(
    postgres: Postgres, open_service: OpenService, many: int
) -> None:
    service = open_service(database_url=postgres.url, concurrency=2)
    service.start_api()
    for _ in range(2):
        service.start_worker()
    with cutting(postgres), ThreadPoolExecutor(4) as users:
        jobs = list(users.map(lambda _: service.post(steps=STEPS, seconds=0.05), range(many)))
        service.until_ended(jobs, 60 + 3 * many)
    service.assert_all_succeeded(jobs, stub_losses(STEPS))
    service.assert_only_jobs(jobs)
    assert_no_duplicates(service, jobs)


def test_api_and_worker_run_jobs_as_a_role_that_owns_no_table(postgres: Postgres, open_service: OpenService) -> None:
    postgres.sql("CREATE ROLE frs_service LOGIN")
    service = open_service(database_owner_url=postgres.url, database_url=postgres.url_of("frs", "frs_service"))
    service.start_api()
    service.start_worker(database_owner_url="")
    succeeded, cancelled = service.post(steps=STEPS), service.post(steps=10_000, seconds=0.05)
    service.until_ended([succeeded])
    service.request_with_retry("POST", f"/jobs/{cancelled}/cancel")
    service.until_ended([cancelled])
    service.assert_all_succeeded([succeeded], stub_losses(STEPS))
    [entry] = service.request_with_retry("GET", f"/audit?target={cancelled}&action=job.cancel")["data"]
    assert entry["owner"] == "admin"
    assert postgres.sql("SELECT count(*) FROM pg_tables WHERE tableowner = 'frs_service'") == 0


@pytest.mark.parametrize("nth", [2, 3])
def test_a_commit_whose_answer_is_lost_is_looked_up_and_not_repeated(
    postgres: Postgres, open_service: OpenService, nth: int
) -> None:
    service = open_service(database_url=postgres.url)
    job_id = service.harness.submit(steps=STEPS)
    supervisor = service.harness.supervisor()
    with answers_lost(service.harness.database.engine, nth) as lost:
        supervisor.run()
    assert len(lost) > 3, "commits succeeded and said that they had not"
    service.assert_all_succeeded([job_id], stub_losses(STEPS))
    assert_no_duplicates(service, [job_id])
    seen = service.harness.rows(select(Row.seq).where(Row.job_id == job_id))
    seen += service.harness.rows(select(Metric.seq).where(Metric.job_id == job_id).distinct())
    assert sorted(seen) == list(range(1, len(seen) + 1)), "numbers of events without a gap"


def test_a_failed_commit_is_repeated(postgres: Postgres, open_service: OpenService) -> None:
    service = open_service(database_url=postgres.url)
    job_id = service.harness.submit(steps=STEPS)
    supervisor = service.harness.supervisor()
    with answers_lost(service.harness.database.engine, 2, committed=False) as lost:
        supervisor.run()
    assert len(lost) > 3
    service.assert_all_succeeded([job_id], stub_losses(STEPS))
    assert_no_duplicates(service, [job_id])


@pytest.mark.parametrize("seconds", [0, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("users", [25, 120])
def test_without_a_free_connection_the_api_answers_503_while_the_database_hangs_and_recovers(
    postgres: Postgres, open_service: OpenService, seconds: int, users: int
) -> None:
    service = open_service(database_url=postgres.url)
    service.start_api()
    with ThreadPoolExecutor(users) as pool, postgres.locked("jobs"):
        held_until = time.monotonic() + seconds
        requests = [pool.submit(service.request, "GET", "/jobs") for _ in range(users)]
        until(lambda: postgres.sql(WAITING) == CONNECTIONS, ANSWERED_SECONDS)
        live = [service.request("GET", "/health/live").status_code for _ in range(3)]
        until(lambda: sum(answer.done() for answer in requests) >= users - CONNECTIONS, ANSWERED_SECONDS)
        refused = [answer.result() for answer in requests if answer.done()]
        time.sleep(max(0, held_until - time.monotonic()))  # the fault: no connection is free for so long
    answers = [answer.result() for answer in requests]
    assert live == [200] * 3, "it needs no connection: with one it would be 503, too"
    for answer in refused:
        assert answer.status_code == 503 and answer.headers["Retry-After"] == "2"
        assert answer.json()["code"] == "busy"
    assert {answer.status_code for answer in answers} == {200, 503}
    assert (
        service.request("GET", "/jobs").status_code == 200
        and service.request("GET", "/health/ready").status_code == 200
    )


def assert_no_duplicates(service: ServiceHarness, jobs: list[str]) -> None:
    """What an attempt says once stands once in the history, whatever became of the answer to its commit."""
    checkpoint = Row.data["step"].as_integer()
    for job_id in jobs:
        said = (Row.job_id == job_id, Row.type == "checkpoint", Row.data["kind"].as_string() == "training")
        steps = service.harness.rows(select(checkpoint).where(*said).group_by(Row.attempt, checkpoint))
        assert service.harness.rows(select(func.count()).where(*said)) == [len(steps)]
        for type_, phase in (("phase", "loading"), ("phase", "training"), ("evaluation", None)):
            of_it = (Row.job_id == job_id, Row.type == type_)
            of_it += (Row.data["phase"].as_string() == phase,) if phase else ()
            per_attempt = select(func.count()).where(*of_it).group_by(Row.attempt)
            assert set(service.harness.rows(per_attempt)) <= {1}, (job_id, type_, phase)


@contextmanager
def answers_lost(engine: Engine, nth: int, committed: bool = True) -> Iterator[list[int]]:
    """End the connection of every nth commit, before or after the commit, before its answer arrives."""
    commit, lost, numbers = engine.dialect.do_commit, [], count()

    def commit_and_break(connection: PoolProxiedConnection) -> None:
        number = next(numbers)
        if number % nth:
            return commit(connection)
        if committed:
            commit(connection)
        lost.append(number)
        connection.dbapi_connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    engine.dialect.do_commit = commit_and_break
    try:
        yield lost
    finally:
        engine.dialect.do_commit = commit


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
