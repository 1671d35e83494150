"""Clients of an API's event streams that reconnect, and a writer of events."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from frs import events
from frs.spec import JobSpec
from store.db.database import Database
from store.db.tables import Dataset, Event, Metric
from store.jobs import lifecycle, recording
from store.jobs.lease import Lease
from store.states import EndReason, JobStatus

SPEC = JobSpec.model_validate({"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}})


@dataclass
class StreamClient:
    """A client like a browser's EventSource: it reconnects with the number of the last event it received."""

    port: int
    key: str
    job_id: str
    numbers: list[int] = field(default_factory=list)
    """Numbers of the received events."""
    types: list[str] = field(default_factory=list)
    """Types of the received events."""
    connections: int = 0

    async def run(self) -> None:
        """Receive events until the stream's last one; reconnect after each failure."""
        while not self.types or self.types[-1] != "end":
            with suppress(OSError, asyncio.IncompleteReadError, ValueError):
                await self._connect()
            await asyncio.sleep(0.05)

    async def _connect(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(self._request())
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head[:20]:
                return
            self.connections += 1
            while chunk := await self._read_chunk(reader):
                for block in chunk.split(b"\n\n"):
                    self._parse(block)
        finally:
            writer.close()

    async def _read_chunk(self, reader: asyncio.StreamReader) -> bytes:
        size = int(await reader.readuntil(b"\r\n"), 16)
        return (await reader.readexactly(size + 2))[:-2]

    def _parse(self, block: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
        if b"event" in fields:
            self.types.append(fields[b"event"].decode())
        if b"id" in fields:
            self.numbers.append(int(fields[b"id"]))

    def _request(self) -> bytes:
        last_event_id = f"Last-Event-ID: {self.numbers[-1]}\r\n" if self.numbers else ""
        head = f"GET /jobs/{self.job_id}/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\n"
        return f"{head}{last_event_id}\r\n".encode()


def run_clients(clients: list[StreamClient]) -> threading.Thread:
    """Run the clients in one thread until all their streams end; return the thread."""

    async def run_all() -> None:
        await asyncio.gather(*(client.run() for client in clients))

    thread = threading.Thread(target=lambda: asyncio.run(run_all()), daemon=True)
    thread.start()
    return thread


class EventWriter:
    """A thread that records events of running jobs, as workers do, until `finish`."""

    def __init__(self, database: Database, jobs: int) -> None:
        """Add a data set, start this number of jobs and the thread."""
        self.database = database
        paths = dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations"), "x")
        self._do(lambda session: session.merge(Dataset(id="ds_shapes", name="shapes", **paths)))
        self.leases = [self._start() for _ in range(jobs)]
        self._finish = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Stop the thread and finish the jobs."""
        self._finish.set()
        self._thread.join(60)
        for lease in self.leases:
            self._do(lifecycle.finish, lease, JobStatus.SUCCEEDED, EndReason.COMPLETED)

    def evaluate(self, epoch: int) -> None:
        """Record an evaluation of the first job."""
        scores: Any = {"metrics": {"bbox_mAP": 0.5}, "per_class": {}, "images": 1, "detections": 1}
        evaluation = events.Evaluation(role="student", step=epoch, epoch=epoch, **scores)
        self._do(recording.record, self.leases[0], [evaluation])

    def event_numbers(self, job_id: str) -> list[int]:
        """Return the numbers of all events and metrics of the job, in order."""
        with self.database.read() as session:
            numbers = [
                session.scalars(select(table.seq).distinct().where(table.job_id == job_id)) for table in (Event, Metric)
            ]
            return sorted(itertools.chain(*numbers))

    def _run(self) -> None:
        for step in itertools.count(1):
            for lease in self.leases:
                self._do(recording.record, lease, _batch(step))
            if self._finish.wait(0.01):
                return

    def _start(self) -> Lease:
        job_id = self._do(lifecycle.add, SPEC, dataset_id="ds_shapes").id
        lease: Lease = self._do(lifecycle.claim, "worker", 600.0, job_id)
        return lease

    def _do(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        with self.database.write() as session:
            result = function(session, *arguments, **keywords)
            session.commit()
        return result


def _batch(step: int) -> list[recording.PersistedEvent]:
    values = {"train/loss": 1 / step, "train/lr": 0.1}
    batch: list[recording.PersistedEvent] = [events.Metrics(step=step, epoch=1, values=values)]
    batch.append(events.Progress(epoch=1, epochs=1, step=step, steps=10_000, fraction=step / 10_000))
    return [*batch, events.Log(message=f"step {step}\nand more")] if step % 5 == 0 else batch
