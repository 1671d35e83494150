"""Durable `POST /jobs` a second beside the bare floor, and whether kill -9 of the API loses one it acknowledged.

    python benchmarks/posting.py --json

Both are asked by `wrk` over loopback, one after the other, several times in turn; `ratio` is the median of the pairs'.
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
from latency import until
from service import SPEC, Service, floor, service
from sqlalchemy import select

from store.db.tables import Job

CONNECTIONS, SECONDS, PAIRS = 16, 5, 3
EACH = 100
"""Jobs acknowledged between two kills, at least."""
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
    asked = parser.parse_args()
    measured = measure(asked.seconds, asked.pairs)
    print(json.dumps(measured) if asked.json else "  ".join(f"{name} {value}" for name, value in measured.items()))


def measure(seconds: int = SECONDS, pairs: int = PAIRS) -> dict[str, Any]:
    """Requests a second, milliseconds at the 99th percentile, acknowledged jobs and those lost of them."""
    with floor() as bare, service() as ours:
        rate(bare, "none", 1)
        rate(ours.url, ours.key, 1)
        found = [(rate(bare, "none", seconds), rate(ours.url, ours.key, seconds)) for _ in range(pairs)]
        acknowledged, lost = killed(ours)
    middle = statistics.median(ours["rate"] / bare["rate"] for bare, ours in found)
    return {
        "ratio": middle,
        "floor": statistics.median(bare["rate"] for bare, _ in found),
        "rate": statistics.median(ours["rate"] for _, ours in found),
        "p99_floor": statistics.median(bare["p99"] for bare, _ in found),
        "p99": statistics.median(ours["p99"] for _, ours in found),
        "failed": sum(ours["failed"] for _, ours in found),
        "acknowledged": acknowledged,
        "lost": lost,
    }


def rate(url: str, key: str, seconds: int) -> dict[str, float]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT.replace("KEY", key).replace("BODY", json.dumps(SPEC)))
        script.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", script.name, f"{url}/jobs"]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(told.splitlines()[-1])
    return {"rate": found["requests"] / found["microseconds"] * 1e6, "p99": found["p99"], "failed": found["failed"]}


def killed(ours: Service) -> tuple[int, int]:
    """Kills the API in mid-load, three times; jobs acknowledged, and those that are not there afterwards."""
    acknowledged: set[str] = set()
    for kill in range(1, 4):
        askers = [threading.Thread(target=_ask, args=[ours, acknowledged]) for _ in range(4)]
        for asker in askers:
            asker.start()
        until(lambda wanted=kill * EACH: len(acknowledged) >= wanted)
        ours.processes["api"].send_signal(signal.SIGKILL)
        ours.processes["api"].wait()
        for asker in askers:
            asker.join()
        ours.start_api()
    with ours.database.read() as session:
        kept = set(session.scalars(select(Job.id)))
    return len(acknowledged), len(acknowledged - kept)


def _ask(ours: Service, acknowledged: set[str]) -> None:
    """Until nobody answers."""
    try:
        with ours.client() as client:
            while (answer := client.post("/jobs", json=SPEC)).status_code == 201:
                acknowledged.add(answer.json()["id"])
    except httpx2.RequestError:
        return


if __name__ == "__main__":
    main()
