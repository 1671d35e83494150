"""Memory of the API and of a worker over thousands of jobs that do nothing.

    python benchmarks/steady.py --json

The trainer is one line of shell. `..._slope`: megabytes a thousand jobs, the line through the second half's samples.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from latency import until
from service import SPEC, Service, service
from sqlalchemy import func, select

from store.db.tables import Job
from store.states import JobStatus

JOBS, EVERY = 5000, 125
WORKER = """
import sys
from worker.__main__ import main
from worker.app import dispatcher
outcome = '{"type": "outcome", "status": "succeeded", "end_reason": "completed"}'
script = 'for last; do :; done; echo "$1" > /proc/self/fd/$last'
dispatcher.command = ("/bin/sh", "-c", script, "trainer", outcome)
main()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    measured = measure(asked.jobs)
    print(json.dumps(measured) if asked.json else "  ".join(f"{name} {value}" for name, value in measured.items()))


def measure(jobs: int = JOBS) -> dict[str, Any]:
    samples: dict[str, list[float]] = {"api": [], "worker": []}
    with service(concurrency=4) as ours:
        ours.start("worker", "-c", WORKER)
        with ours.client() as client:
            for posted in range(EVERY, jobs + 1, EVERY):
                for _ in range(EVERY):
                    client.post("/jobs", json=SPEC).raise_for_status()
                client.get("/jobs", params={"limit": 200}).raise_for_status()
                until(lambda posted=posted: _ended(ours) == posted, 300)
                for name, found in samples.items():
                    found.append(_resident(ours.processes[name].pid))
                print(posted, {name: round(found[-1], 1) for name, found in samples.items()}, file=sys.stderr)
    return {"jobs": jobs} | {
        key: value
        for name, found in samples.items()
        for key, value in ((f"{name}_mb", found[-1]), (f"{name}_slope", _slope(found)))
    }


def _ended(ours: Service) -> int:
    with ours.database.read() as session:
        counts = session.execute(select(Job.status, func.count()).group_by(Job.status))
        ended = {status: count for status, count in counts}  # noqa: C416  (a result has `keys`, which misleads `dict`)
    if ended.get(JobStatus.FAILED):
        raise RuntimeError("jobs failed")
    return ended.get(JobStatus.SUCCEEDED, 0)


def _resident(pid: int) -> float:
    told = Path(f"/proc/{pid}/status").read_text()
    return int(told.partition("VmRSS:")[2].split()[0]) / 1024


def _slope(samples: list[float]) -> float:
    half = samples[len(samples) // 2 :]
    return float(np.polyfit(np.arange(len(half)) * EVERY / 1000, half, 1)[0]) if len(half) > 1 else 0.0


if __name__ == "__main__":
    main()
