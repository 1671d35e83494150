"""Memory of the API and of a worker over thousands of empty jobs.

    python benchmarks/steady.py --json

The trainer is one line of shell. `..._slope`: growth in MB per 1,000 jobs, a linear fit to the second half of the
samples.
"""

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from latency import wait_until
from service import SPEC, Service, run_service
from sqlalchemy import func, select

from store.db.tables import Job
from store.states import JobStatus

JOBS, EVERY = 5000, 125
WORKER = """
from worker.__main__ import main
outcome = '{"type": "outcome", "status": "succeeded", "end_reason": "completed"}'
script = 'for last; do :; done; echo "$1" > /proc/self/fd/$last'
main([], ("/bin/sh", "-c", script, "trainer", outcome))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.jobs)
    print(json.dumps(result) if options.json else "  ".join(f"{name} {value}" for name, value in result.items()))


def measure(jobs: int = JOBS) -> dict[str, Any]:
    """Return the final resident memory of API and worker in MB and its growth in MB per 1,000 jobs."""
    samples: dict[str, list[float]] = {"api": [], "worker": []}
    with run_service(concurrency=4) as service:
        service.start("worker", "-X", "faulthandler", "-c", WORKER)
        with service.client() as client:
            for posted in range(EVERY, jobs + 1, EVERY):
                for _ in range(EVERY):
                    client.post("/jobs", json=SPEC).raise_for_status()
                client.get("/jobs", params={"limit": 200}).raise_for_status()
                try:
                    wait_until(lambda posted=posted: _ended(service) == posted, 300)
                except TimeoutError:
                    _print_state(service, client)
                    raise
                for name, values in samples.items():
                    values.append(resident_mb(service.processes[name].pid))
                print(posted, {name: round(values[-1], 1) for name, values in samples.items()}, file=sys.stderr)
    return {"jobs": jobs} | {
        key: value
        for name, values in samples.items()
        for key, value in ((f"{name}_mb", values[-1]), (f"{name}_slope", _slope(values)))
    }


def _print_state(service: Service, client: httpx2.Client) -> None:
    """Print why jobs wait, abort the worker, and print the end of its log with its threads' stacks and its children."""
    for status in ("running", "queued"):
        page = client.get("/jobs", params={"status": status, "limit": 4}).json()["data"]
        for job in page:
            print(json.dumps(client.get(f"/jobs/{job['id']}").json()), file=sys.stderr)
    worker = service.processes["worker"]
    children = subprocess.run(["ps", "--ppid", str(worker.pid), "-o", "pid,stat,wchan:20,args"], capture_output=True)
    worker.send_signal(signal.SIGABRT)
    worker.wait()
    log = (service.settings.data / "worker.log").read_text(errors="replace")
    print(children.stdout.decode(), log[-20_000:], sep="\n", file=sys.stderr)


def _ended(service: Service) -> int:
    with service.database.read() as session:
        counts = session.execute(select(Job.status, func.count()).group_by(Job.status))
        ended = {status: count for status, count in counts}  # noqa: C416  (`dict(counts)` would use the `keys` method of the result)
    if ended.get(JobStatus.FAILED):
        raise RuntimeError("jobs failed")
    return ended.get(JobStatus.SUCCEEDED, 0)


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _slope(samples: list[float]) -> float:
    second_half = samples[len(samples) // 2 :]
    return (
        float(np.polyfit(np.arange(len(second_half)) * EVERY / 1000, second_half, 1)[0])
        if len(second_half) > 1
        else 0.0
    )


if __name__ == "__main__":
    main()
