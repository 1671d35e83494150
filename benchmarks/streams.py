"""Streams of events: how late events come to 2,000 clients of one API process, and what a client costs it.

    python benchmarks/streams.py --jobs 100 --json

Everyone hears of one event a second. API, the clients, and who writes the events share this machine.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from service_process import ServiceProcess, cpu, serving
from sqlalchemy import text

from frs.spec import JobSpec
from store.db.tables import Dataset, Job

CLIENTS, SECONDS, GROUPS, AT_A_TIME = 2_000, 20, 10, 100
SETTLE_SECONDS = 3
SPEC = JobSpec.model_validate({"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}})
AT = re.compile(rb'event: log\ndata: {"at": "([^"]+)"')
GROUP = "WHERE CAST(substr(id, -2) AS INTEGER) % :groups = :group"
NUMBER = f"UPDATE jobs SET last_event = last_event + 1 {GROUP}"
WRITE = f"""INSERT INTO events (job_id, seq, attempt, type, at, data)
 SELECT id, last_event, 0, 'log', :at, '{{"level": "info", "message": "one more second has gone by"}}' FROM jobs {GROUP}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--jobs", type=int, default=CLIENTS, help="That they follow.")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    measured = measure(asked.clients, asked.jobs, asked.seconds)
    print(json.dumps(measured) if asked.json else "  ".join(f"{name} {value}" for name, value in measured.items()))


def measure(clients: int = CLIENTS, jobs: int = CLIENTS, seconds: float = SECONDS) -> dict[str, Any]:
    """Delays in seconds from before the event's transaction ended, resident bytes a client, the share of a core the API took, events that came and should have."""
    _allow_files(2 * clients + 200)
    with serving("sqlite", FRS_MAX_STREAMS_PER_KEY=str(clients)) as service_process:
        ids = _fill(service_process, jobs)
        with service_process.api() as pid:
            return asyncio.run(
                _listen(service_process, pid, [ids[number % jobs] for number in range(clients)], seconds)
            )


async def _listen(service_process: ServiceProcess, pid: int, ids: list[str], seconds: float) -> dict[str, Any]:
    before, ending = _resident(pid), threading.Event()
    listeners = await _connect(service_process, ids)
    commits: list[float] = []
    writer = threading.Thread(target=_write, args=(service_process, ending, commits), daemon=True)
    writer.start()
    await asyncio.sleep(SETTLE_SECONDS)
    for listener in listeners:
        listener.delays.clear()
    busy, began = cpu(pid), time.monotonic()
    await asyncio.sleep(seconds)
    lasted, busy = time.monotonic() - began, cpu(pid) - busy
    delays = np.concatenate([listener.delays for listener in listeners])
    grown = _resident(pid) - before
    still_there = sum(not listener.is_closed for listener in listeners)
    ending.set()
    writer.join()
    for listener in listeners:
        listener.close()
    return {
        "p50": float(np.percentile(delays, 50)),
        "p99": float(np.percentile(delays, 99)),
        "worst": float(delays.max()),
        "p99_of_writing": float(np.percentile(commits, 99)),
        "bytes_per_client": grown / len(ids),
        "cores": busy / lasted,
        "events": len(delays),
        "expected": len(ids) * lasted,
        "clients": still_there,
        "jobs": len(set(ids)),
    }


class Listener(asyncio.Protocol):
    def __init__(self, request: bytes) -> None:
        self.request, self.delays = request, list[float]()
        self.is_closed = False
        self.answered = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if not self.answered.done():
            self.answered.set_result(data.startswith(b"HTTP/1.1 200"))
        present = time.time()
        self.delays += [present - datetime.fromisoformat(at.decode()).timestamp() for at in AT.findall(data)]

    def connection_lost(self, _: Exception | None) -> None:
        self.is_closed = True

    def close(self) -> None:
        self.transport.close()


async def _connect(service_process: ServiceProcess, ids: list[str]) -> list[Listener]:
    listeners: list[Listener] = []
    loop, key = asyncio.get_running_loop(), service_process.key
    for start in range(0, len(ids), AT_A_TIME):
        requests = [
            f"GET /jobs/{id}/stream?from=now HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
            for id in ids[start : start + AT_A_TIME]
        ]
        made = await asyncio.gather(
            *(
                loop.create_connection(lambda r=request: Listener(r), "127.0.0.1", service_process.port)
                for request in requests
            )
        )
        listeners += [listener for _, listener in made]
        assert all(await asyncio.gather(*(listener.answered for _, listener in made))), "a stream was refused"
    return listeners


def _write(service_process: ServiceProcess, ending: threading.Event, commits: list[float]) -> None:
    """A tenth of the jobs every tenth of a second; `commits` gets the seconds each transaction took."""
    due = time.monotonic()
    group = 0
    while not ending.is_set():
        with service_process.database.write() as session:
            of_the_group = {"groups": GROUPS, "group": group % GROUPS}
            session.execute(text(NUMBER), of_the_group)
            session.execute(text(WRITE), of_the_group | {"at": (began := time.time())})
            session.commit()
        commits.append(time.time() - began)
        group, due = group + 1, due + 1 / GROUPS
        ending.wait(max(0.0, due - time.monotonic()))


def _fill(service_process: ServiceProcess, count: int) -> list[str]:
    paths = dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations"), "x")
    with service_process.database.write() as session:
        session.add(Dataset(id="ds_shapes", name="shapes", **paths))
        session.flush()
        for number in range(count):
            row = {"id": f"job_{number:026d}", "kind": SPEC.kind, "spec": SPEC.model_dump(mode="json")}
            session.add(Job(**row, dataset_id="ds_shapes"))
        session.commit()
    return [f"job_{number:026d}" for number in range(count)]


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, soft) if hard < 0 else min(wanted, hard), hard))


if __name__ == "__main__":
    main()
