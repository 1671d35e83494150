"""Run one job as several processes on this machine, which appear as one trainer: one event stream, one exit code.

torchrun's launcher starts and monitors the processes. It is given a function, not a command: a command would run in its
own session, beyond the signals sent to the trainer's process group, and without a pipe. The processes rendezvous
through a file, so nothing listens on a network.
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

POLL_SECONDS = 0.1
CHUNK_BYTES = 1 << 16
GRACE_SECONDS = 5
"""Time for the other processes to end after one has failed, in seconds."""
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGABRT)
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform.startswith("linux") else {}


def run(spec: ResolvedSpec, workdir: Path, emit: events.Emit) -> int:
    """Run `spec` like `trainer.run`, on as many processes as the spec requests, and emit a single outcome.

    If a process was killed by a signal and none reported a failure, this process ends by the same signal.
    """
    try:
        choose_device(spec.job.resources)
    except FrsError as error:
        return trainer.report_failure(emit, error)
    with tempfile.TemporaryDirectory(dir=workdir.resolve(), prefix=".processes-") as folder:
        group = TrainerProcesses(spec, workdir, Path(folder))
        try:
            with _forward_signals(group):
                outcomes = [event for event in group.stream_events() if not _forward_event(event, emit)]
        finally:
            group.end()
    return _report_outcome(emit, outcomes, group)


class TrainerProcesses:
    """The processes of a job. A thread starts them and lives as long as they do."""

    def __init__(self, spec: ResolvedSpec, workdir: Path, folder: Path) -> None:
        self.size = spec.job.resources.trainers
        self.killed_by: int | None = None
        """Signal that killed the first process to fail, or None."""
        self.signals: list[int] = []
        """Signals to send to all processes once they are running."""
        self._pipes = [Pipe(duplex=False) for _ in range(self.size)]
        self._unread = {reader: b"" for reader, _ in self._pipes}
        writers = [writer for _, writer in self._pipes]
        arguments = (spec.model_dump_json(), str(workdir), str(folder / "group"), writers)
        self._thread = threading.Thread(target=self._launch, args=(folder / "launch", arguments), name="launcher")

    def stream_events(self) -> Iterator[events.Event]:
        """Start the processes and yield their events until they have ended."""
        _start_with_signals_blocked(self._thread)
        while self._thread.is_alive():
            self._send_signals()
            yield from self._read(POLL_SECONDS)
        while wait(list(self._unread), 0):
            yield from self._read(0)

    def end(self) -> None:
        """Kill the processes that are still running."""
        while self._thread.is_alive():
            for child in active_children():
                child.kill()
            self._thread.join(POLL_SECONDS)

    def _send_signals(self) -> None:
        running = [child.pid for child in active_children() if child.pid is not None]
        while running and self.signals:
            number = self.signals.pop(0)
            for pid in running:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _read(self, timeout: float) -> Iterator[events.Event]:
        """Yield the events of complete lines only: a process may be killed while it writes a line."""
        for reader in wait(list(self._unread), timeout):
            assert isinstance(reader, Connection)
            *lines, self._unread[reader] = (self._unread[reader] + os.read(reader.fileno(), CHUNK_BYTES)).split(b"\n")
            yield from map(events.parse, lines)

    def _launch(self, rendezvous: Path, arguments: tuple[object, ...]) -> None:
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
            rdzv_endpoint=str(rendezvous),
            rdzv_configs={"store_type": "file", "keep_alive_interval": 600},
            local_addr="127.0.0.1",
            max_restarts=0,
            monitor_interval=POLL_SECONDS,
            logs_specs=DefaultLogsSpecs(),
            shutdown_timeout=GRACE_SECONDS,
        )
        try:
            elastic_launch(config, run_process)(*arguments)
        except ChildFailedError as error:
            codes = [failure.exitcode for failure in error.failures.values()]
            self.killed_by = next((-code for code in codes if code < 0), None)


def run_process(spec: str, workdir: str, store: str, writers: Sequence[Connection]) -> None:
    """Run one process of a job; torchrun's environment variables define its rank.

    Rank 0 emits all its events, the other ranks only their outcome.
    """
    die_with_parent()
    rank, resolved = int(os.environ["RANK"]), ResolvedSpec.model_validate_json(spec)
    emit = events.lines_to(os.fdopen(os.dup(writers[rank].fileno()), "w"))
    try:
        with process_group.process_group(rank, len(writers), Path(store), gpus=torch.cuda.is_available()):
            code = trainer.run(resolved, Path(workdir), emit if rank == 0 else lambda event: _emit_outcome(event, emit))
            if code not in (0, trainer.EXIT_INTERRUPTED):
                raise SystemExit(code)
    except KeyboardInterrupt:
        raise SystemExit(1) from None
    except Exception as error:
        if not process_group.is_peer_lost(error):
            raise
        _wait_to_be_ended()


def _emit_outcome(event: events.Event, emit: events.Emit) -> None:
    if isinstance(event, Outcome):
        emit(event)


def _wait_to_be_ended() -> None:
    """Wait after another process was lost: the launcher must see that process end first, and then ends this one."""
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.alarm(60)
    signal.pause()


@contextmanager
def _forward_signals(group: TrainerProcesses) -> Iterator[None]:
    """Forward stop requests to every process.

    SIGINT is forwarded as SIGTERM: a terminal sends SIGINT to the processes too, and a second SIGINT would end them.
    """

    def forward(number: int, _: FrameType | None) -> None:
        group.signals.append(signal.SIGTERM if number == signal.SIGINT else number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: a handler not set from Python, the faulthandler's


def _start_with_signals_blocked(thread: threading.Thread) -> None:
    """Start the thread with SIGTERM and SIGINT blocked.

    The processes it starts inherit the mask until `StopRequest.on_signals`, so no signal is lost while they import.
    """
    resource_tracker.ensure_running()  # it would unblock the signals if it started with the first process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    thread.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forward_event(event: events.Event, emit: events.Emit) -> bool:
    """Emit the event unless it is an outcome, and return whether it was emitted."""
    if isinstance(event, Outcome):
        return False
    emit(event)
    return True


def _report_outcome(emit: events.Emit, collected: Sequence[events.Event], group: TrainerProcesses) -> int:
    """Emit the job's outcome and return the exit code.

    The earliest failure is the job's; without one, the signal that killed a process; otherwise the outcome that all
    processes have in common.
    """
    outcomes = [event for event in collected if isinstance(event, Outcome)]
    failures = sorted((o for o in outcomes if o.status == "failed"), key=lambda outcome: outcome.time)
    if not failures and group.killed_by is not None:
        return _end_by_signal(group.killed_by)
    if not failures and len(outcomes) < group.size:
        return trainer.report_failure(
            emit, FrsError("One of the job's processes ended without an outcome.", "See the job's log.")
        )
    outcome = failures[0] if failures else max(outcomes, key=lambda outcome: outcome.time)
    emit(outcome)
    return {"succeeded": 0, "interrupted": trainer.EXIT_INTERRUPTED, "failed": 1}[outcome.status]


def _end_by_signal(number: int) -> int:
    """End this process by the signal, so that its parent sees the cause; return the shell's code if it survives."""
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
