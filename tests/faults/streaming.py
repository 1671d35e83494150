"""A real API process that can be killed, clients that listen whatever happens to it, and somebody who writes meanwhile."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import select

from frs import events
from frs.spec import JobSpec
from store.db.database import Database
from store.db.tables import Dataset, Event, Metric
from store.jobs import lifecycle, recording
from store.jobs.lease import Lease
from store.states import EndReason, JobStatus

SPEC = JobSpec.model_validate({"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}})
READY_SECONDS = 60


class Api:
    """`python -m api` on one port, again and again."""

    def __init__(self, data: Path, **settings: str) -> None:
        self.environment = os.environ | {"FRS_DATA": str(data), **settings}
        self.key = (data / "api-key").read_text().strip()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        (data / "url").write_text(self.url)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "api", "--port", str(self.port)]
        self.process = subprocess.Popen(command, env=self.environment, stderr=subprocess.DEVNULL)
        until(self._answers, READY_SECONDS)

    def end(self, how: signal.Signals) -> float:
        """Seconds it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(how)
        self.process.wait(60)
        return time.monotonic() - began

    def _answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/health/live").is_success
        except httpx2.RequestError:
            return False


@dataclass
class Listener:
    """A browser's EventSource, more or less: comes back with the number of what it saw last."""

    api: Api
    job_id: str
    seen: list[int] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    visits: int = 0

    async def run(self) -> None:
        while not self.types or self.types[-1] != "end":
            with suppress(OSError, asyncio.IncompleteReadError, ValueError):
                await self._visit()
            await asyncio.sleep(0.05)

    async def _visit(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.api.port)
        try:
            writer.write(self._request())
            status = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in status[:20]:
                return
            self.visits += 1
            while chunk := await self._chunk(reader):
                for block in chunk.split(b"\n\n"):
                    self._take(block)
        finally:
            writer.close()

    async def _chunk(self, reader: asyncio.StreamReader) -> bytes:
        size = int(await reader.readuntil(b"\r\n"), 16)
        return (await reader.readexactly(size + 2))[:-2]

    def _take(self, block: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
        if b"event" in fields:
            self.types.append(fields[b"event"].decode())
        if b"id" in fields:
            self.seen.append(int(fields[b"id"]))

    def _request(self) -> bytes:
        again = f"Last-Event-ID: {self.seen[-1]}\r\n" if self.seen else ""
        head = f"GET /jobs/{self.job_id}/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.api.key}\r\n"
        return f"{head}{again}\r\n".encode()


def listen(listeners: list[Listener]) -> threading.Thread:
    """To the end, in a thread of its own."""

    async def all_of_them() -> None:
        await asyncio.gather(*(listener.run() for listener in listeners))

    thread = threading.Thread(target=lambda: asyncio.run(all_of_them()), daemon=True)
    thread.start()
    return thread


class Writer:
    """What workers would write, until told to finish."""

    def __init__(self, database: Database, count: int) -> None:
        self.database = database
        paths = dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations"), "x")
        self._do(lambda session: session.add(Dataset(id="ds_shapes", name="shapes", **paths)))
        self.leases = [self._start() for _ in range(count)]
        self._finish = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        self._finish.set()
        self._thread.join(60)
        for lease in self.leases:
            self._do(lifecycle.finish, lease, JobStatus.SUCCEEDED, EndReason.COMPLETED)

    def evaluate(self, epoch: int) -> None:
        scores: Any = {"metrics": {"bbox_mAP": 0.5}, "per_class": {}, "images": 1, "detections": 1}
        told = events.Evaluation(role="student", step=epoch, epoch=epoch, **scores)
        self._do(recording.record, self.leases[0], [told])

    def numbers(self, job_id: str) -> list[int]:
        with self.database.read() as session:
            of_both = [
                session.scalars(select(table.seq).distinct().where(table.job_id == job_id)) for table in (Event, Metric)
            ]
            return sorted(itertools.chain(*of_both))

    def _run(self) -> None:
        for step in itertools.count(1):
            for lease in self.leases:
                self._do(recording.record, lease, _batch(step))
            if self._finish.wait(0.01):
                return

    def _start(self) -> Lease:
        self._do(lifecycle.add, SPEC, dataset_id="ds_shapes")
        lease: Lease = self._do(lifecycle.claim, "worker", 600.0)
        return lease

    def _do(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with self.database.write() as session:
            result = function(session, *arguments, **named)
            session.commit()
        return result


def _batch(step: int) -> list[recording.PersistedEvent]:
    values = {"train/loss": 1 / step, "train/lr": 0.1}
    told: list[recording.PersistedEvent] = [events.Metrics(step=step, epoch=1, values=values)]
    told.append(events.Progress(epoch=1, epochs=1, step=step, steps=10_000, fraction=step / 10_000))
    return [*told, events.Log(message=f"step {step}\nand more")] if step % 5 == 0 else told


def until(true: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
