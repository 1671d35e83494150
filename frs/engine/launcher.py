"""One job on several processes of this machine: starts them, hears them, ends them, and speaks for all.

torchrun's launcher starts and watches them. It is given a function to run, not a command: a command would get a session
of its own, out of reach of whoever kills the trainer's group, and no pipe. They meet at a file, so nothing listens
on a network.
"""

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe, active_children, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from frs import events
from frs.engine import trainer
from frs.errors import FrsError
from frs.events import Outcome
from frs.isolation.process import PARENT, die_with_parent
from frs.resolved import ResolvedSpec
from frs.training import process_group
from frs.training.devices import choose_device

TICK = 0.1
CHUNK = 1 << 16
GRACE_SECONDS = 5
"""For the others, once a process has failed."""
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGABRT)
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform.startswith("linux") else {}


def run(spec: ResolvedSpec, workdir: Path, emit: events.Emit) -> int:
    """As `trainer.run`, on as many processes as the spec says; one outcome for all of them.

    Where a process was killed, this one ends by the same signal.
    """
    try:
        choose_device(spec.job.resources)
    except FrsError as error:
        return trainer.report_failure(emit, error)
    with tempfile.TemporaryDirectory(dir=workdir.resolve(), prefix=".processes-") as folder:
        group = TrainerProcesses(spec, workdir, Path(folder))
        try:
            with _signals_for(group):
                outcomes = [event for event in group.told() if not _passed_on(event, emit)]
        finally:
            group.end()
    return _end(emit, outcomes, group)


class TrainerProcesses:
    """The processes of a job, started by a thread that lives as long as they do."""

    def __init__(self, spec: ResolvedSpec, workdir: Path, folder: Path) -> None:
        self.size = spec.job.resources.trainers
        self.killed_by: int | None = None
        """Signal that ended the first process to fail, if one did."""
        self.signals: list[int] = []
        """For all of them, as soon as there are any."""
        self._pipes = [Pipe(duplex=False) for _ in range(self.size)]
        self._unread = {reader: b"" for reader, _ in self._pipes}
        writers = [writer for _, writer in self._pipes]
        arguments = (spec.model_dump_json(), str(workdir), str(folder / "group"), writers)
        self._thread = threading.Thread(target=self._launch, args=(folder / "launch", arguments), name="launcher")

    def told(self) -> Iterator[events.Event]:
        """Starts them; everything they tell, until they have ended."""
        _start_with_signals_blocked(self._thread)
        while self._thread.is_alive():
            self._signal()
            yield from self._read(TICK)
        while wait(list(self._unread), 0):
            yield from self._read(0)

    def end(self) -> None:
        """Kills what still runs."""
        while self._thread.is_alive():
            for child in active_children():
                child.kill()
            self._thread.join(TICK)

    def _signal(self) -> None:
        running = [child.pid for child in active_children() if child.pid is not None]
        while running and self.signals:
            number = self.signals.pop(0)
            for pid in running:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _read(self, timeout: float) -> Iterator[events.Event]:
        """Whole lines alone: a process may be killed within one."""
        for reader in wait(list(self._unread), timeout):
            assert isinstance(reader, Connection)
            *lines, self._unread[reader] = (self._unread[reader] + os.read(reader.fileno(), CHUNK)).split(b"\n")
            yield from map(events.parse, lines)

    def _launch(self, meeting_place: Path, arguments: tuple[object, ...]) -> None:
        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
        logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.CRITICAL)
        os.environ.update(LOOPBACK | {PARENT: str(os.getpid())})
        os.environ.update({"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "PYTHONUNBUFFERED": "1"})
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.size)))
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=self.size,
            run_id="frs",
            rdzv_backend="c10d",
            rdzv_endpoint=str(meeting_place),
            rdzv_configs={"store_type": "file", "keep_alive_interval": 600},
            local_addr="127.0.0.1",
            max_restarts=0,
            monitor_interval=TICK,
            logs_specs=DefaultLogsSpecs(),
            shutdown_timeout=GRACE_SECONDS,
        )
        try:
            elastic_launch(config, run_process)(*arguments)
        except ChildFailedError as error:
            codes = [failure.exitcode for failure in error.failures.values()]
            self.killed_by = next((-code for code in codes if code < 0), None)


def run_process(spec: str, workdir: str, store: str, writers: Sequence[Connection]) -> None:
    """What each process runs; torchrun's variables say which it is. Rank 0 tells everything, the others an outcome."""
    die_with_parent()
    rank, resolved = int(os.environ["RANK"]), ResolvedSpec.model_validate_json(spec)
    tell = events.lines_to(os.fdopen(os.dup(writers[rank].fileno()), "w"))
    try:
        with process_group.process_group(rank, len(writers), Path(store), gpus=torch.cuda.is_available()):
            code = trainer.run(resolved, Path(workdir), tell if rank == 0 else lambda event: _only_outcome(event, tell))
            if code not in (0, trainer.EXIT_INTERRUPTED):
                raise SystemExit(code)
    except KeyboardInterrupt:
        raise SystemExit(1) from None
    except Exception as error:
        if not process_group.is_peer_lost(error):
            raise
        _wait_for_the_end()


def _only_outcome(event: events.Event, tell: events.Emit) -> None:
    if isinstance(event, Outcome):
        tell(event)


def _wait_for_the_end() -> None:
    """For a process that lost another: the launcher must see that one's end first, and ends us then."""
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.alarm(60)
    signal.pause()


@contextmanager
def _signals_for(group: TrainerProcesses) -> Iterator[None]:
    """A request to stop goes to every process; a terminal's SIGINT, which they get too, as one that may come twice."""

    def forward(number: int, _: FrameType | None) -> None:
        group.signals.append(signal.SIGTERM if number == signal.SIGINT else number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: the fault handler's, which is not Python's


def _start_with_signals_blocked(thread: threading.Thread) -> None:
    """What the thread starts has them blocked too, until `StopRequest.on_signals`: none is lost while it imports."""
    resource_tracker.ensure_running()  # which unblocks them, where it is started only with the first process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    thread.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _passed_on(event: events.Event, emit: events.Emit) -> bool:
    if isinstance(event, Outcome):
        return False
    emit(event)
    return True


def _end(emit: events.Emit, told: Sequence[events.Event], group: TrainerProcesses) -> int:
    """The earliest failure is the job's; without one a signal; else what all say alike."""
    outcomes = [event for event in told if isinstance(event, Outcome)]
    failures = sorted((o for o in outcomes if o.status == "failed"), key=lambda outcome: outcome.time)
    if not failures and group.killed_by is not None:
        return _exit_with(group.killed_by)
    if not failures and len(outcomes) < group.size:
        return trainer.report_failure(
            emit, FrsError("One of the job's processes ended without a word.", "See the job's log.")
        )
    outcome = failures[0] if failures else max(outcomes, key=lambda outcome: outcome.time)
    emit(outcome)
    return {"succeeded": 0, "interrupted": trainer.EXIT_INTERRUPTED, "failed": 1}[outcome.status]


def _exit_with(number: int) -> int:
    """Whoever started us sees how the process ended; the shell's way to say it where we live on."""
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
