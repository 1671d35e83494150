"""Seconds from POST to claim, with Redis and with no broker at all, and from cancel to the trainer's death.

    python benchmarks/latency.py --json

The worker is a real one that polls as by default; its trainer is the tests' stub. From the database's own times.
"""

import argparse
import json
import random
import time
from functools import partial
from pathlib import Path
from typing import Any

from service import SPEC, Service, redis_server, service
from sqlalchemy import select

from store.db.tables import Attempt, Job

JOBS, CANCELS = 60, 20
NO_BROKER = "redis://127.0.0.1:1/0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--cancels", type=int, default=CANCELS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    measured = measure(asked.jobs, asked.cancels)
    print(json.dumps(measured) if asked.json else "  ".join(f"{name} {value}" for name, value in measured.items()))


def measure(jobs: int = JOBS, cancels: int = CANCELS) -> dict[str, Any]:
    """Seconds at the 99th percentile; of fewer than a hundred, the longest."""
    with redis_server() as url, service(broker_url=url) as ours:
        ours.start_stub_worker()
        with_redis = claims(ours, jobs)
        cancelled = deaths(ours, cancels)
    with service(broker_url=NO_BROKER) as ours:
        ours.start_stub_worker()
        without = claims(ours, jobs // 3)
    return {
        "claim": p99(with_redis),
        "claim_median": sorted(with_redis)[len(with_redis) // 2],
        "claim_without": p99(without),
        "cancel": p99(cancelled),
        "jobs": len(with_redis),
        "cancels": len(cancelled),
    }


def claims(ours: Service, jobs: int) -> list[float]:
    """Of an idle worker, asked at random times; the first job, for which it has to start, does not count."""
    ids = []
    for _ in range(jobs + 1):
        ids.append(post(ours, steps=1))
        until(lambda: _job(ours, ids[-1]).status.is_terminal)
        time.sleep(random.uniform(0.2, 1))
    query = select(Attempt.started_at - Job.created_at).join(Job, Job.id == Attempt.job_id)
    with ours.database.read() as session:
        return list(session.scalars(query.where(Job.id.in_(ids[1:]), Attempt.number == 1)))


def deaths(ours: Service, cancels: int) -> list[float]:
    found = []
    for _ in range(cancels):
        job_id = post(ours, steps=100_000, seconds=0.01)
        until(partial(_processes, job_id))
        time.sleep(random.uniform(0.2, 1))
        began = time.monotonic()
        with ours.client() as client:
            client.post(f"/jobs/{job_id}/cancel").raise_for_status()
        until(partial(_gone, job_id))
        found.append(time.monotonic() - began)
    return found


def post(ours: Service, **requested_actions: object) -> str:
    with ours.client() as client:
        body = {**SPEC, "metadata": {name: str(value) for name, value in requested_actions.items()}}
        answer = client.post("/jobs", json=body)
        answer.raise_for_status()
        return str(answer.json()["id"])


def p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def until(true: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("waited in vain")
        time.sleep(0.02)


def _job(ours: Service, job_id: str) -> Job:
    with ours.database.read() as session:
        return session.get_one(Job, job_id)


def _gone(job_id: str) -> bool:
    return not _processes(job_id)


def _processes(job_id: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if job_id.encode() in (folder / "cmdline").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main()
