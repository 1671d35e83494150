"""Transactions and rows per second that a service asks of PostgreSQL, by what it does.

    python benchmarks/demand.py --json

A job reports two steps a second and writes a checkpoint every 10 minutes. PostgreSQL counts (`pg_stat_database`) while
one API and then one worker are idle, while jobs train, and while clients follow them by SSE. Counts per second hardly
depend on the speed of the machine; docs/scale.md uses them.
"""

import argparse
import json
import time
from contextlib import ExitStack

import httpx2
from latency import wait_until
from servers import Postgres, temporary_folder
from service import SPEC, run_service
from sqlalchemy import text

from store.db.database import Database

SECONDS = 60.0
JOBS, STREAMS = 8, 20
STEPS_PER_SECOND = 2.0
COUNTERS = ("transactions", "tup_inserted", "tup_updated", "tup_fetched")
READ = text(
    "SELECT xact_commit + xact_rollback, tup_inserted, tup_updated, tup_fetched FROM pg_stat_database"
    " WHERE datname = current_database()"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of each measurement")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.seconds)
    print(json.dumps(result, indent=None if options.json else 1))


def measure(seconds: float = SECONDS) -> dict[str, dict[str, float]]:
    """Return the counters per second of each state of the service, on top of the state before it."""
    with temporary_folder("frs-postgresql-") as folder, Postgres(folder) as server:
        return _measure(server.url, seconds)


def _measure(url: str, seconds: float) -> dict[str, dict[str, float]]:
    with run_service(database_url=url, concurrency=JOBS) as service, ExitStack() as stack:
        client = stack.enter_context(service.client())
        api = _rates(service.database, seconds)
        service.start_stub_worker()
        wait_until(lambda: client.get("/workers").json()["data"], 60)
        worker = _rates(service.database, seconds)
        ids = _start_jobs(client)
        running = _rates(service.database, seconds)
        for number in range(STREAMS):
            stack.enter_context(client.stream("GET", f"/jobs/{ids[number % JOBS]}/stream"))
        streamed = _rates(service.database, seconds)
        return {
            "api": api,
            "worker": _difference(worker, api, 1),
            "job": _difference(running, worker, JOBS),
            "stream": _difference(streamed, running, STREAMS),
        }


def _start_jobs(client: httpx2.Client) -> list[str]:
    """Start jobs that train for as long as the measurement takes; return their ids."""
    metadata = {"steps": "1000000", "seconds": str(1 / STEPS_PER_SECOND), "checkpoint_every": "1200"}
    ids = [
        client.post("/jobs", json=SPEC | {"metadata": metadata}).raise_for_status().json()["id"] for _ in range(JOBS)
    ]
    wait_until(lambda: all(client.get(f"/jobs/{id}").json()["progress"] for id in ids), 120)
    return ids


def _rates(database: Database, seconds: float) -> dict[str, float]:
    before, started = _read(database), time.monotonic()
    time.sleep(seconds)
    after, duration = _read(database), time.monotonic() - started
    return {name: (after[name] - before[name]) / duration for name in COUNTERS}


def _read(database: Database) -> dict[str, int]:
    time.sleep(2)  # idle sessions report their counts with a delay of up to a second
    with database.read() as session:
        return dict(zip(COUNTERS, session.execute(READ).one(), strict=True))


def _difference(rates: dict[str, float], before: dict[str, float], number: int) -> dict[str, float]:
    return {name: round((rates[name] - before[name]) / number, 3) for name in rates}


if __name__ == "__main__":
    main()
