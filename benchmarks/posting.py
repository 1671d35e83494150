"""Throughput of durable `POST /jobs` relative to a minimal server, and jobs lost by `kill -9` of the API.

    python benchmarks/posting.py --json

`wrk` measures both over loopback, alternating several times; `ratio` is the median over the pairs of measurements.
"""

import argparse
import json
import signal
import statistics
import subprocess
import tempfile
import threading
from typing import Any

import httpx2
from latency import wait_until
from service import SPEC, Service, run_floor, run_service
from sqlalchemy import select

from store.db.tables import Job

CONNECTIONS, SECONDS, PAIRS = 16, 5, 3
JOBS_PER_KILL = 100
"""Minimum number of jobs acknowledged between two kills."""
_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer KEY"
wrk.body = [==[BODY]==]
function done(summary, latency)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format('{"requests": %d, "microseconds": %d, "failed": %d, "p99": %f}\\n',
    summary.requests, summary.duration, failed, latency:percentile(99) / 1e3))
end
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.seconds, options.pairs)
    print(json.dumps(result) if options.json else "  ".join(f"{name} {value}" for name, value in result.items()))


def measure(seconds: int = SECONDS, pairs: int = PAIRS) -> dict[str, Any]:
    """Return requests per second, p99 latencies in milliseconds, and the number of acknowledged and of lost jobs."""
    with run_floor() as floor_url, run_service() as service:
        rate(floor_url, "none", 1)
        rate(service.url, service.key, 1)
        measurements = [
            (rate(floor_url, "none", seconds), rate(service.url, service.key, seconds)) for _ in range(pairs)
        ]
        acknowledged, lost = kill_api(service)
    ratio = statistics.median(api["rate"] / floor["rate"] for floor, api in measurements)
    return {
        "ratio": ratio,
        "floor": statistics.median(floor["rate"] for floor, _ in measurements),
        "rate": statistics.median(api["rate"] for _, api in measurements),
        "p99_floor": statistics.median(floor["p99"] for floor, _ in measurements),
        "p99": statistics.median(api["p99"] for _, api in measurements),
        "failed": sum(api["failed"] for _, api in measurements),
        "acknowledged": acknowledged,
        "lost": lost,
    }


def rate(url: str, key: str, seconds: int) -> dict[str, float]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT.replace("KEY", key).replace("BODY", json.dumps(SPEC)))
        script.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", script.name, f"{url}/jobs"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    summary = json.loads(output.splitlines()[-1])
    return {
        "rate": summary["requests"] / summary["microseconds"] * 1e6,
        "p99": summary["p99"],
        "failed": summary["failed"],
    }


def kill_api(service: Service) -> tuple[int, int]:
    """Kill the API under load three times. Return the number of acknowledged jobs and of those missing afterwards."""
    acknowledged: set[str] = set()
    for kill in range(1, 4):
        clients = [threading.Thread(target=_post_jobs, args=[service, acknowledged]) for _ in range(4)]
        for client in clients:
            client.start()
        wait_until(lambda minimum=kill * JOBS_PER_KILL: len(acknowledged) >= minimum)
        service.processes["api"].send_signal(signal.SIGKILL)
        service.processes["api"].wait()
        for client in clients:
            client.join()
        service.start_api()
    with service.database.read() as session:
        stored = set(session.scalars(select(Job.id)))
    return len(acknowledged), len(acknowledged - stored)


def _post_jobs(service: Service, acknowledged: set[str]) -> None:
    """Post jobs until the API does not answer."""
    try:
        with service.client() as client:
            while (response := client.post("/jobs", json=SPEC)).status_code == 201:
                acknowledged.add(response.json()["id"])
    except httpx2.RequestError:
        return


if __name__ == "__main__":
    main()
