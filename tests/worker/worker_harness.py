"""A harness with a real database, real files and real processes; only the trainer is a stub."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Select, Update, func, select, update
from sqlalchemy.orm import Session

from frs.spec import JobSpec
from store.artifacts.storage import Artifacts, open_artifacts
from store.db.database import Database
from store.db.tables import Artifact, Dataset, Event, Job, Metric
from store.jobs import actions, lifecycle
from store.jobs.lease import Lease
from store.scheduling.waiting import StatusReason, waiting_reason
from store.settings import Settings
from worker.attempt.supervisor import Supervisor
from worker.dispatch.dispatcher import Dispatcher

STUB = (sys.executable, "-u", "-X", "faulthandler", str(Path(__file__).with_name("stub_trainer.py")))
SHORT = {
    "heartbeat_seconds": 0.3,
    "fence_seconds": 4,
    "lease_seconds": 5,
    "reap_seconds": 0.3,
    "poll_seconds": 0.1,
    "grace_seconds": 3,
    "stall_timeout_seconds": 60,
    "step_stall_timeout_seconds": 60,
    "min_free_mb": 1,
}


@dataclass(frozen=True)
class WorkerHarness:
    settings: Settings
    database: Database

    def do(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with self.database.write() as session:
            result = function(session, *arguments, **named)
            session.commit()
        return result

    def add_dataset(self) -> None:
        root = self.settings.datasets_root / "shapes"
        for half in ("train", "val"):
            (root / half).mkdir(parents=True)
            (root / f"{half}.json").write_text("{}")
        paths = {f"{half}_images": f"shapes/{half}" for half in ("train", "val")}
        paths |= {f"{half}_annotations": f"shapes/{half}.json" for half in ("train", "val")}
        self.do(lambda session: session.add(Dataset(id="ds_shapes", name="shapes", **paths)))

    def submit(self, spec: dict[str, Any] | None = None, **requested_actions: object) -> str:
        job = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, **(spec or {})}
        job["metadata"] = {name: str(value) for name, value in requested_actions.items()}
        return self.do(lifecycle.add, JobSpec.model_validate(job), dataset_id="ds_shapes").id

    def claim(self) -> Lease:
        lease = self.do(lifecycle.claim, "tests", self.settings.lease_seconds)
        assert lease is not None
        return lease

    def supervisor(self, **changes: Any) -> Supervisor:
        """Of the next job in the queue."""
        settings = self.settings.model_copy(update=changes)
        return Supervisor(self.database, settings, self.claim(), STUB)

    def run(self, **requested_actions: object) -> Job:
        """A job with these requested_actions after one attempt."""
        job_id = self.submit(**requested_actions)
        self.supervisor().run()
        return self.job(job_id)

    def job(self, job_id: str) -> Job:
        return self.rows(select(Job).where(Job.id == job_id))[0]

    def rows(self, query: Select[Any]) -> Sequence[Any]:
        with self.database.read() as session:
            return session.scalars(query).all()

    def job_in(self, session: Session, job_id: str) -> Job:
        return session.get_one(Job, job_id)

    def without_wish(self, spec: dict[str, Any], requested_action: str) -> dict[str, Any]:
        return spec | {
            "metadata": {name: value for name, value in spec["metadata"].items() if name != requested_action}
        }

    def stop_requested(self, job_id: str) -> Update:
        """As if somebody had asked while it still ran."""
        return update(Job).where(Job.id == job_id).values(stop_requested_at=1.0)

    def cancel(self, job_id: str) -> None:
        self.do(actions.cancel, job_id)

    def waiting(self, job_id: str) -> StatusReason | None:
        with self.database.read() as session:
            return waiting_reason(session, session.get_one(Job, job_id))

    def steps(self, job_id: str) -> list[int]:
        return list(self.rows(select(Metric.step).where(Metric.job_id == job_id, Metric.key == "train/loss")))

    def losses(self, job_id: str) -> list[float]:
        query = select(Metric.value).where(Metric.job_id == job_id, Metric.key == "train/loss")
        return list(self.rows(query.order_by(Metric.step)))

    def last_event(self, job_id: str) -> int:
        return self.rows(select(func.max(Event.seq)).where(Event.job_id == job_id))[0]

    def logs(self, job_id: str) -> list[str]:
        events = self.rows(select(Event).where(Event.job_id == job_id, Event.type == "log").order_by(Event.seq))
        return [event.data["message"] for event in events]

    def statuses(self, job_id: str) -> list[str]:
        events = self.rows(select(Event).where(Event.job_id == job_id, Event.type == "status").order_by(Event.seq))
        return [event.data["status"] for event in events]

    def artifact(self, job_id: str, name: str) -> Any:
        [row] = self.rows(select(Artifact).where(Artifact.job_id == job_id, Artifact.name == name))
        return json.load(self.artifacts.open(row.key))

    def trainers(self) -> list[int]:
        return processes(str(self.settings.work_root))

    @property
    def artifacts(self) -> Artifacts:
        return open_artifacts(self.settings)

    def until_step(self, job_id: str, step: int) -> None:
        until(lambda: (self.job(job_id).progress or {}).get("step", 0) >= step)

    def until_status(self, job_id: str, status: str, seconds: float = 20) -> Job:
        until(lambda: self.job(job_id).status == status, seconds)
        return self.job(job_id)


@contextmanager
def dispatching(harness: WorkerHarness, **changes: Any) -> Iterator[Dispatcher]:
    """`changes`: of the settings, as on another host."""
    dispatcher = Dispatcher(harness.settings.model_copy(update=changes), harness.database, STUB)
    dispatcher.start()
    try:
        yield dispatcher
    finally:
        dispatcher.stop()
        dispatcher.join()


def until(true: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def pause(harness: WorkerHarness, process: subprocess.Popen[bytes]) -> None:
    """Stops it, but not while it holds SQLite's one write lock, for then nobody could go on."""
    while True:
        process.send_signal(signal.SIGSTOP)
        until(lambda: _is_stopped(process.pid))  # on a busy machine its threads go on for a while
        database = sqlite3.connect(harness.settings.data / "frs.db", timeout=0.2)
        try:
            database.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError:
            process.send_signal(signal.SIGCONT)
            time.sleep(0.05)
        finally:
            database.close()


def _is_stopped(pid: int) -> bool:
    states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def in_background(supervisor: Supervisor) -> threading.Thread:
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    return thread


def processes(text: str) -> list[int]:
    """Pids of processes with that in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in line and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def alive(pid: int) -> bool:
    """A zombie is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
