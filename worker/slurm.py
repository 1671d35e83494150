"""Keep as many Slurm tasks waiting as there are jobs to claim; each task is a worker that runs one job and ends.

    python -m worker.slurm --gpus 1,4 --max-tasks 16 -- --partition=gpu --account=vision

The database and `squeue` are asked each time, so the submitter may be killed and started again at any time. Options
after `--` are those of sbatch. The tasks inherit this environment: set FRS_DATABASE_URL and FRS_ARTIFACTS_URL in it.
"""

import argparse
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from store.db.database import Database, open_database
from store.db.tables import Job, WorkerRequest
from store.reaper import Reaper
from store.requests import worker_requests
from store.scheduling import queue
from store.scheduling.queue import NO_EXCLUSIONS, GpuCapacity
from store.settings import Settings
from store.settings_report import read_settings
from store.states import JobStatus, RequestStatus
from worker import logs

SCRIPT = Path(__file__).parents[1] / "deploy" / "slurm" / "frs-worker.sbatch"
COMMAND_SECONDS = 60.0
"""Timeout of sbatch and squeue."""
MAX_TASKS = 1000
"""Largest number of tasks in the queue; by default, Slurm accepts arrays up to index 1000."""
MAX_PAUSE_SECONDS = 600.0
"""Longest pause between tasks for jobs that the tasks before did not claim, for example for lack of their data set."""
_log = structlog.get_logger()

Claimable = frozenset[tuple[str, int]]
"""Id and number of attempts of jobs and worker requests that a worker may claim."""


class SlurmError(Exception):
    """sbatch or squeue is missing, failed or did not answer; the message names the next step."""


@dataclass(frozen=True)
class Task:
    """A task in Slurm's queue, waiting or running."""

    name: str
    """Slurm's job name; there is one for each number of GPUs and nodes."""
    worker: str
    """Name of its worker, as in `frs-worker.sbatch`."""


@dataclass(frozen=True)
class Options:
    """What to submit."""

    gpus: tuple[int, ...]
    """GPUs of a task, ascending: a job runs in the smallest task that it fits."""
    max_tasks: int
    name: str
    script: Path
    sbatch: tuple[str, ...]
    """Options for sbatch."""
    nodes: tuple[int, ...] = (1,)
    """Nodes of a task: a job runs in a task of as many."""


class Submitter:
    """Submits tasks for the jobs in the queue. Only the pauses after useless tasks are kept from pass to pass."""

    def __init__(self, settings: Settings, database: Database, options: Options, poll_seconds: float) -> None:
        self._database, self._options, self._poll_seconds = database, options, poll_seconds
        self._reaper = Reaper(settings, database)
        self._pauses: dict[str, _Pause] = {}

    def submit(self) -> int:
        """Submit the tasks that are missing now and return their number. Raises SlurmError and SQLAlchemyError."""
        names = self._capacities()
        self._reaper.reap_when_due()  # between two tasks, there may be no worker that does
        tasks = _tasks(names)
        with self._database.read() as session:
            busy = _busy_workers(session)
            claimable = {name: _claimable(session, capacity) for name, capacity in names.items()}
        waiting = Counter(task.name for task in tasks if task.worker not in busy)
        free, submitted = self._options.max_tasks - len(tasks), 0
        for name, capacity in names.items():
            count = min(len(claimable[name]) - waiting[name], free - submitted)
            if count > 0 and self._is_due(name, claimable[name]):
                self._sbatch(name, capacity, count)
                submitted += count
        return submitted

    def _capacities(self) -> dict[str, GpuCapacity]:
        """Return the capacity of each kind of task by its name."""
        capacities = [
            _capacity(self._options.gpus, gpus, nodes) for nodes in self._options.nodes for gpus in self._options.gpus
        ]
        suffixes = [f"-{capacity.nodes}nodes" if capacity.nodes > 1 else "" for capacity in capacities]
        return {
            f"{self._options.name}-{capacity.gpus}gpu{suffix}": capacity
            for capacity, suffix in zip(capacities, suffixes, strict=True)
        }

    def _is_due(self, name: str, claimable: Claimable) -> bool:
        """Return whether to submit now: new tasks for the same jobs wait twice as long each time."""
        before, now = self._pauses.get(name), time.monotonic()
        if before and before.claimable == claimable:
            if now < before.until:
                return False
            seconds = min(MAX_PAUSE_SECONDS, 2 * before.seconds)
        else:
            seconds = self._poll_seconds
        self._pauses[name] = _Pause(claimable, seconds, now + seconds)
        return True

    def _sbatch(self, name: str, capacity: GpuCapacity, count: int) -> None:
        gpus = [f"--gres=gpu:{capacity.gpus}"] if capacity.gpus else []
        hosts = [f"--nodes={capacity.nodes}", f"--ntasks={capacity.nodes}"] if capacity.nodes > 1 else []
        array = ["--parsable", f"--job-name={name}", f"--array=1-{count}", *hosts, *gpus]
        worker = [str(self._options.script), "--min-gpus", str(capacity.at_least)]
        job_id = _output_of(["sbatch", *array, *self._options.sbatch, *worker]).strip()
        _log.info("Tasks were submitted.", slurm_job=job_id, tasks=count, gpus=capacity.gpus, nodes=capacity.nodes)


@dataclass(frozen=True)
class _Pause:
    claimable: Claimable
    seconds: float
    until: float
    """On the monotonic clock."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Submit tasks until SIGTERM, or once. Raises SystemExit."""
    parser = argparse.ArgumentParser(
        prog="python -m worker.slurm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--gpus", type=_gpu_counts, default=(0,), help="GPUs of a task, such as 1 or 1,4; default 0, for CPUs alone"
    )
    parser.add_argument(
        "--nodes", type=_node_counts, default=(1,), help="nodes of a task, such as 1,2, each with these GPUs; default 1"
    )
    parser.add_argument("--max-tasks", type=_count, default=10, help="most tasks in Slurm's queue; default 10")
    parser.add_argument("--name", type=_name, default="frs", help="beginning of the tasks' names; one for each service")
    parser.add_argument("--script", type=Path, default=SCRIPT, help="default: deploy/slurm/frs-worker.sbatch")
    parser.add_argument("--poll", type=float, default=15.0, metavar="SECONDS", help="default 15")
    parser.add_argument("--once", action="store_true", help="look once and end, for cron")
    parser.add_argument("sbatch", nargs="*", metavar="SBATCH_OPTION", help="options for sbatch, after --")
    given = parser.parse_args(arguments)
    if not given.script.is_file():
        parser.error(f"{given.script} does not exist; name a copy of deploy/slurm/frs-worker.sbatch with --script")
    settings = read_settings()
    logs.configure()
    options = Options(given.gpus, given.max_tasks, given.name, given.script, tuple(given.sbatch), given.nodes)
    submitter = Submitter(settings, open_database(settings.database_url), options, given.poll)
    if given.once:
        _submit_once(submitter)
    else:
        _submit_until_stopped(submitter, given.poll)


def _submit_once(submitter: Submitter) -> None:
    try:
        submitter.submit()
    except (SlurmError, SQLAlchemyError) as error:
        raise SystemExit(_message(error)) from None


def _submit_until_stopped(submitter: Submitter, poll_seconds: float) -> None:
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    while not stopping.is_set():
        try:
            submitter.submit()
        except (SlurmError, SQLAlchemyError) as error:
            _log.warning("No tasks were submitted; the submitter will retry.", error=_message(error))
        stopping.wait(poll_seconds)


def _message(error: Exception) -> str:
    if isinstance(error, SlurmError):
        return str(error)
    name = type(error).__name__
    return f"The database cannot be used ({name}): check FRS_DATABASE_URL, and run `python -m worker.doctor`."


def _capacity(sizes: Sequence[int], gpus: int, nodes: int) -> GpuCapacity:
    """Return the capacity of a worker with so many GPUs, which leaves jobs that fit the next smaller size to that."""
    smaller = max((size for size in sizes if size < gpus), default=-1)
    return GpuCapacity(gpus, gpus, at_least=smaller + 1, nodes=nodes)


def _claimable(session: Session, capacity: GpuCapacity) -> Claimable:
    requests = worker_requests.peek(session, capacity, (), MAX_TASKS)
    ids = queue.peek(session, capacity, NO_EXCLUSIONS, MAX_TASKS).next
    jobs = session.execute(select(Job.id, Job.attempt).where(Job.id.in_(ids))).tuples()
    return frozenset([*((request.id, request.attempt) for request in requests), *jobs])


def _busy_workers(session: Session) -> set[str]:
    """Return the names of the workers that run a job or a worker request."""
    jobs = select(Job.lease_owner).where(Job.status == JobStatus.RUNNING)
    requests = select(WorkerRequest.lease_owner).where(WorkerRequest.status == RequestStatus.RUNNING)
    owners = [*session.scalars(jobs), *session.scalars(requests)]
    return {owner.partition(":")[0] for owner in owners if owner}


def _tasks(names: Iterable[str]) -> list[Task]:
    """Return this user's tasks of these names that have not ended."""
    command = ["squeue", "--me", "--array", "--noheader", f"--name={','.join(names)}", "--format=%j %F %K %T"]
    rows = (line.split() for line in _output_of(command).splitlines())
    return [Task(name, f"slurm-{job}-{index}") for name, job, index, state in rows if state != "COMPLETING"]


def _output_of(command: Sequence[str]) -> str:
    """Return the output of one of Slurm's commands. Raises SlurmError."""
    program = command[0]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except FileNotFoundError:
        advice = "run this on a host of the cluster that submits jobs (Debian: package slurm-client)"
        raise SlurmError(f"{program} is not installed: {advice}.") from None
    except subprocess.TimeoutExpired:
        advice = "check that slurmctld runs (`scontrol ping`)"
        raise SlurmError(f"{program} did not answer within {COMMAND_SECONDS:.0f} s: {advice}.") from None
    if result.returncode:
        raise SlurmError(f"{program} failed: {result.stderr.strip()[-500:] or f'exit code {result.returncode}'}")
    return result.stdout


def _gpu_counts(text: str) -> tuple[int, ...]:
    counts = tuple(sorted({int(part) for part in text.split(",")}))
    if counts[0] < 0 or (counts[0] == 0 and len(counts) > 1):
        raise argparse.ArgumentTypeError("0 stands alone; elsewhere, jobs without GPUs run in the smallest tasks")
    return counts


def _node_counts(text: str) -> tuple[int, ...]:
    counts = tuple(sorted({int(part) for part in text.split(",")}))
    if counts[0] < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return counts


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,40}", text):
        raise argparse.ArgumentTypeError("must consist of at most 40 letters, digits and . _ -")
    return text


def _count(text: str) -> int:
    if not 1 <= (count := int(text)) <= MAX_TASKS:
        raise argparse.ArgumentTypeError(f"must be between 1 and {MAX_TASKS}")
    return count


if __name__ == "__main__":
    main()
