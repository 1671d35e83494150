"""Time from POST to claim, with Redis and without a broker, and from cancel to the end of the trainer.

    python benchmarks/latency.py --json

The worker polls at its default interval; its trainer is the stub of the tests. Claims are timed by timestamps in the
database.
"""

import argparse
import json
import random
import time
from functools import partial
from pathlib import Path
from typing import Any

from service import SPEC, Service, run_redis, run_service
from sqlalchemy import select

from store.db.tables import Attempt, Job

JOBS, CANCELS = 60, 20
NO_BROKER = "redis://127.0.0.1:1/0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--cancels", type=int, default=CANCELS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.jobs, options.cancels)
    print(json.dumps(result) if options.json else "  ".join(f"{name} {value}" for name, value in result.items()))


def measure(jobs: int = JOBS, cancels: int = CANCELS) -> dict[str, Any]:
    """Return the 99th percentiles in seconds; of fewer than 100 samples, the maximum."""
    with run_redis() as url, run_service(broker_url=url) as service:
        service.start_stub_worker()
        with_redis = time_claims(service, jobs)
        cancels_seconds = time_cancels(service, cancels)
    with run_service(broker_url=NO_BROKER) as service:
        service.start_stub_worker()
        without_broker = time_claims(service, jobs // 3)
    return {
        "claim": p99(with_redis),
        "claim_median": sorted(with_redis)[len(with_redis) // 2],
        "claim_without": p99(without_broker),
        "cancel": p99(cancels_seconds),
        "jobs": len(with_redis),
        "cancels": len(cancels_seconds),
    }


def time_claims(service: Service, jobs: int) -> list[float]:
    """Return the seconds from POST to claim by an idle worker, at random times. The first job is a warm-up."""
    ids = []
    for _ in range(jobs + 1):
        ids.append(post(service, steps=1))
        wait_until(lambda: _job(service, ids[-1]).status.is_terminal)
        time.sleep(random.uniform(0.2, 1))
    query = select(Attempt.started_at - Job.created_at).join(Job, Job.id == Attempt.job_id)
    with service.database.read() as session:
        return list(session.scalars(query.where(Job.id.in_(ids[1:]), Attempt.number == 1)))


def time_cancels(service: Service, cancels: int) -> list[float]:
    """Return the seconds from each cancel request until the trainer process has ended."""
    durations = []
    for _ in range(cancels):
        job_id = post(service, steps=100_000, seconds=0.01)
        wait_until(partial(_processes, job_id))
        time.sleep(random.uniform(0.2, 1))
        started = time.monotonic()
        with service.client() as client:
            client.post(f"/jobs/{job_id}/cancel").raise_for_status()
        wait_until(partial(_has_ended, job_id))
        durations.append(time.monotonic() - started)
    return durations


def post(service: Service, **stub_options: object) -> str:
    with service.client() as client:
        body = {**SPEC, "metadata": {name: str(value) for name, value in stub_options.items()}}
        response = client.post("/jobs", json=body)
        response.raise_for_status()
        return str(response.json()["id"])


def p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def wait_until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"condition not met within {seconds:.0f} s")
        time.sleep(0.02)


def _job(service: Service, job_id: str) -> Job:
    with service.database.read() as session:
        return session.get_one(Job, job_id)


def _has_ended(job_id: str) -> bool:
    return not _processes(job_id)


def _processes(job_id: str) -> list[str]:
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if job_id.encode() in (folder / "cmdline").read_bytes():
                pids.append(folder.name)
        except OSError:
            continue
    return pids


if __name__ == "__main__":
    main()
