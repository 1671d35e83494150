"""Delay of streamed events for 500 clients of one API process, and the memory and CPU time per client.

    python benchmarks/streams.py --jobs 100 --json

Each client receives one event per second. The API, the clients and the writer of the events share this machine.
"""

import argparse
import asyncio
import json
import re
import resource
import threading
import time
from datetime import datetime
from typing import Any

import numpy as np
from service_process import ServiceProcess, start_service
from sqlalchemy import select, text

from frs.spec import JobSpec
from store.db.tables import Dataset, Job

CLIENTS, SECONDS, GROUPS, AT_A_TIME = 500, 20, 10, 100
SETTLE_SECONDS = 3
SPEC = JobSpec.model_validate({"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}})
AT = re.compile(rb'event: log\ndata: {"at": "([^"]+)"')
GROUP = "WHERE CAST(substr(id, -2) AS INTEGER) % :groups = :group"
NUMBER = f"UPDATE jobs SET last_event = last_event + 1 {GROUP}"
WRITE = f"""INSERT INTO events (job_id, seq, attempt, type, at, data)
 SELECT id, last_event, 0, 'log', :at, '{{"level": "info", "message": "one more second has gone by"}}'
 FROM jobs {GROUP}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--jobs", type=int, default=CLIENTS, help="number of jobs that the clients follow")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.clients, options.jobs, options.seconds)
    print(json.dumps(result) if options.json else "  ".join(f"{name} {value}" for name, value in result.items()))


def measure(clients: int = CLIENTS, jobs: int = CLIENTS, seconds: float = SECONDS) -> dict[str, Any]:
    """Return delays, memory per client in bytes, CPU cores used by the API, and received and written events.

    A delay, in seconds, starts before the transaction of the event is committed.
    """
    _raise_file_limit(2 * clients + 200)
    with start_service("sqlite", FRS_MAX_STREAMS_PER_KEY=str(clients)) as service:
        ids = _fill(service, jobs)
        with service.api:
            return asyncio.run(_listen(service, [ids[number % jobs] for number in range(clients)], seconds))


async def _listen(service: ServiceProcess, ids: list[str], seconds: float) -> dict[str, Any]:
    memory_before, stop = service.api.resident_bytes(), threading.Event()
    listeners = await _connect(service, ids)
    commits: list[float] = []
    writer = threading.Thread(target=_write, args=(service, stop, commits), daemon=True)
    writer.start()
    await asyncio.sleep(SETTLE_SECONDS)
    settled = [len(listener.delays) for listener in listeners]
    cpu_before, started = service.api.cpu_seconds(), time.monotonic()
    await asyncio.sleep(seconds)
    duration, cpu_used = time.monotonic() - started, service.api.cpu_seconds() - cpu_before
    delays = np.concatenate([listener.delays[start:] for listener, start in zip(listeners, settled, strict=True)])
    memory_growth = service.api.resident_bytes() - memory_before
    connected = sum(not listener.is_closed for listener in listeners)
    stop.set()
    writer.join()
    await asyncio.sleep(SETTLE_SECONDS)  # the last events arrive
    received = sum(len(listener.delays) for listener in listeners)
    for listener in listeners:
        listener.close()
    with service.database.read() as session:
        written = {job.id: job.last_event for job in session.scalars(select(Job))}
    return {
        "p50": float(np.percentile(delays, 50)),
        "p99": float(np.percentile(delays, 99)),
        "worst": float(delays.max()),
        "p99_of_writing": float(np.percentile(commits, 99)),
        "bytes_per_client": memory_growth / len(ids),
        "cores": cpu_used / duration,
        "events": received,
        "expected": sum(written[id] for id in ids),
        "clients": connected,
        "jobs": len(set(ids)),
    }


class Listener(asyncio.Protocol):
    """A stream client that records the delay of each event."""

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
        now = time.time()
        self.delays += [now - datetime.fromisoformat(at.decode()).timestamp() for at in AT.findall(data)]

    def connection_lost(self, _: Exception | None) -> None:
        self.is_closed = True

    def close(self) -> None:
        self.transport.close()


async def _connect(service: ServiceProcess, ids: list[str]) -> list[Listener]:
    listeners: list[Listener] = []
    loop, key, port = asyncio.get_running_loop(), service.api.key, service.api.port
    for start in range(0, len(ids), AT_A_TIME):
        requests = [
            f"GET /jobs/{id}/stream?from=now HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
            for id in ids[start : start + AT_A_TIME]
        ]
        connections = await asyncio.gather(
            *(loop.create_connection(lambda r=request: Listener(r), "127.0.0.1", port) for request in requests)
        )
        listeners += [listener for _, listener in connections]
        assert all(await asyncio.gather(*(listener.answered for _, listener in connections))), "a stream was refused"
    return listeners


def _write(service: ServiceProcess, stop: threading.Event, commits: list[float]) -> None:
    """Write an event for a tenth of the jobs every 0.1 s; append each transaction's duration in s to `commits`."""
    due = time.monotonic()
    group = 0
    while not stop.is_set():
        with service.database.write() as session:
            parameters = {"groups": GROUPS, "group": group % GROUPS}
            session.execute(text(NUMBER), parameters)
            session.execute(text(WRITE), parameters | {"at": (started := time.time())})
            session.commit()
        commits.append(time.time() - started)
        group, due = group + 1, due + 1 / GROUPS
        stop.wait(max(0.0, due - time.monotonic()))


def _fill(service: ServiceProcess, count: int) -> list[str]:
    paths = dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations"), "x")
    with service.database.write() as session:
        session.add(Dataset(id="ds_shapes", name="shapes", **paths))
        session.flush()
        for number in range(count):
            row = {"id": f"job_{number:026d}", "kind": SPEC.kind, "spec": SPEC.model_dump(mode="json")}
            session.add(Job(**row, dataset_id="ds_shapes"))
        session.commit()
    return [f"job_{number:026d}" for number in range(count)]


def _raise_file_limit(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(count, soft) if hard < 0 else min(count, hard), hard))


if __name__ == "__main__":
    main()
