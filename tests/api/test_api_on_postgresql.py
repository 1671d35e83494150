"""The API on PostgreSQL, whose INTEGER ends at 2^31 - 1."""

import shutil

import pytest
from servers import Postgres, postgres_binaries, temporary_folder

from api.app import create_app
from store.initialise import initialise
from store.settings import Settings

DISTILL = {
    "dataset": "shapes",
    "teacher": {"architecture": "gfl", "init": {"weights": "teacher.pth"}},
    "student": {"architecture": "gfl", "backbone": {"depth": 18}},
    "baseline": {"seeds": 2},
}


@pytest.fixture(scope="module")
def service(template, tmp_path_factory, serve):
    if postgres_binaries() is None:
        pytest.skip("PostgreSQL is not installed in /usr/lib/postgresql")
    data = shutil.copytree(template, tmp_path_factory.mktemp("postgresql") / "data")
    with temporary_folder("frs-postgresql-") as folder, Postgres(folder, "fsync=off") as server:
        settings = Settings(data=data, database_url=server.url)
        initialise(settings)
        with serve(create_app(settings), settings) as service:
            service.register("shapes")
            yield service


def test_jobs_of_the_largest_seeds_are_listed_in_their_order_and_cancelled(service):
    largest = 2**32 - 2
    job = service.submit(spec=DISTILL | {"schedule": {"seed": largest}})
    assert job["id"] in {listed["id"] for listed in service.get("/jobs")["data"]}
    seeds = [service.get(f"/jobs/{id}")["spec"]["schedule"]["seed"] for id in job["baseline_job_ids"]]
    assert seeds == [largest, largest + 1]
    assert service.get("/queue")["data"]
    assert service.client.post(f"/jobs/{job['id']}/cancel").json()["status"] == "cancelled"


@pytest.mark.parametrize("query", ["metrics?since=", "events?cursor=", "logs?cursor="])
def test_positions_in_the_history_of_a_job_have_the_same_limit_on_each_database(service, query):
    path = f"/jobs/{service.submit()['id']}/{query}"
    service.get(f"{path}{2**31 - 1}")
    problem = service.client.get(f"{path}{2**31}").json()
    assert (problem["status"], [error["loc"] for error in problem["errors"]]) == (
        422,
        [query[query.index("?") + 1 : -1]],
    )


@pytest.mark.parametrize("headers", [{}, {"Last-Event-ID": str(2**31)}])
def test_a_stream_starts_at_no_larger_position(service, headers):
    path = f"/jobs/{service.submit()['id']}/stream{'' if headers else f'?since={2**31}'}"
    assert service.client.get(path, headers=headers).status_code == 422
