"""Harness for worker tests: a real database, real files and real processes; only the trainer is a stub."""

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
from waiting import until

from frs.spec import JobSpec
from store.artifacts.storage import Artifacts, open_artifacts
from store.db.audit import Actor
from store.db.database import Database
from store.db.tables import Artifact, Dataset, Event, Job, Metric, Worker
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
    """The settings and database of one test, with helpers that add, run and inspect jobs."""

    settings: Settings
    database: Database

    def do(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Return `function(session, ...)`, committed."""
        with self.database.write() as session:
            result = function(session, *arguments, **named)
            session.commit()
        return result

    def add_dataset(self) -> None:
        root = self.settings.datasets_root / "shapes"
        for split in ("train", "val"):
            (root / split).mkdir(parents=True)
            (root / f"{split}.json").write_text("{}")
        columns = split_columns("shapes/{}", "shapes/{}.json")
        self.do(lambda session: session.add(Dataset(id="ds_shapes", name="shapes", **columns)))

    def submit(self, spec: dict[str, Any] | None = None, actor: Actor | None = None, **options: object) -> str:
        """Add a job with these options of the stub trainer; return its id."""
        job = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, **(spec or {})}
        job["metadata"] = {name: str(value) for name, value in options.items()}
        return self.do(lifecycle.add, JobSpec.model_validate(job), dataset_id="ds_shapes", actor=actor).id

    def claim(self) -> Lease:
        lease = self.do(lifecycle.claim, "tests", self.settings.lease_seconds)
        assert lease is not None
        return lease

    def supervisor(self, **changes: Any) -> Supervisor:
        """Claim the next job in the queue and return its supervisor; `changes` are of the settings."""
        settings = self.settings.model_copy(update=changes)
        return Supervisor(self.database, settings, self.claim(), STUB)

    def run(self, **options: object) -> Job:
        """Add a job with these options of the stub trainer, run one attempt and return the job."""
        job_id = self.submit(**options)
        self.supervisor().run()
        return self.job(job_id)

    def job(self, job_id: str) -> Job:
        return self.rows(select(Job).where(Job.id == job_id))[0]

    def rows(self, query: Select[Any]) -> Sequence[Any]:
        with self.database.read() as session:
            return session.scalars(query).all()

    def job_row(self, session: Session, job_id: str) -> Job:
        return session.get_one(Job, job_id)

    def without_option(self, spec: dict[str, Any], option: str) -> dict[str, Any]:
        return spec | {"metadata": {name: value for name, value in spec["metadata"].items() if name != option}}

    def stop_request(self, job_id: str) -> Update:
        """Return a statement that requests a stop, as a user does while the job runs."""
        return update(Job).where(Job.id == job_id).values(stop_requested_at=1.0)

    def cancel(self, job_id: str) -> None:
        self.do(actions.cancel, job_id)

    def waiting_reason(self, job_id: str) -> StatusReason | None:
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

    def messages(self, job_id: str) -> list[str | None]:
        """Return the messages of the job's status events."""
        events = self.rows(select(Event).where(Event.job_id == job_id, Event.type == "status").order_by(Event.seq))
        return [event.data["message"] for event in events]

    def artifact(self, job_id: str, name: str) -> Any:
        [row] = self.rows(select(Artifact).where(Artifact.job_id == job_id, Artifact.name == name))
        return json.load(self.artifacts.open(row.key))

    def trainers(self) -> list[int]:
        return processes(str(self.settings.work_root))

    @property
    def artifacts(self) -> Artifacts:
        return open_artifacts(self.settings)

    def until_step(self, job_id: str, step: int, seconds: float = 20) -> None:
        until(lambda: (self.job(job_id).progress or {}).get("step", 0) >= step, seconds)

    def until_status(self, job_id: str, status: str, seconds: float = 20) -> Job:
        until(lambda: self.job(job_id).status == status, seconds)
        return self.job(job_id)


def until_polled(harness: WorkerHarness, times: int = 1) -> None:
    """Wait until every registered worker has polled the database so often from the beginning to the end.

    A poll begins with a registration, so the next registration shows that it has ended.
    """
    for _ in range(times + 1):
        last = harness.rows(select(func.max(Worker.seen_at)))[0] or 0.0
        until(lambda last=last: (harness.rows(select(func.min(Worker.seen_at)))[0] or 0.0) > last)


@contextmanager
def dispatching(harness: WorkerHarness, **changes: Any) -> Iterator[Dispatcher]:
    """Run a dispatcher; `changes` of the settings make it another host."""
    dispatcher = Dispatcher(harness.settings.model_copy(update=changes), harness.database, STUB)
    dispatcher.start()
    try:
        yield dispatcher
    finally:
        dispatcher.stop()
        dispatcher.join()


def split_columns(images: str, annotations: str) -> dict[str, str]:
    """Return the path columns of a data set's row from patterns in which `{}` is the split."""
    splits = ("train", "val")
    columns = {f"{split}_images": images.format(split) for split in splits}
    return columns | {f"{split}_annotations": annotations.format(split) for split in splits}


def pause(harness: WorkerHarness, process: subprocess.Popen[bytes]) -> None:
    """Suspend the process while it does not hold SQLite's write lock, which would block every other process."""
    while True:
        process.send_signal(signal.SIGSTOP)
        until(lambda: _is_stopped(process.pid))  # on a busy machine its threads run on for a while
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
    """Run the supervisor in a thread; return the thread."""
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    return thread


def processes(text: str) -> list[int]:
    """Return the ids of the processes whose command line contains the text."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in line and int(folder.name) != os.getpid():
            pids.append(int(folder.name))
    return pids
