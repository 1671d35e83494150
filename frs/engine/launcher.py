"""Run one job as several processes on this host, which appear as one trainer: one event stream, one exit code.

torchrun's launcher starts and monitors the processes. It is given a function, not a command: a command would run in its
own session, beyond the signals sent to the trainer's process group, and without a pipe. The processes of a job on one
host rendezvous through a file, so nothing listens on a network. On several hosts (`frs.engine.nodes`) each runs its
launcher, and the processes rendezvous at the first one.
"""

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing import Pipe, active_children, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType

import torch
from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from frs import events
from frs.engine import trainer
from frs.engine.nodes import FirstNode, OtherNode, open_group_store
from frs.engine.place import Place, place_in
from frs.errors import FrsError, NodesUnavailable
from frs.events import Outcome
from frs.isolation.process import PARENT, die_with_parent
from frs.resolved import ResolvedSpec
from frs.spec import Resources
from frs.training import process_group
from frs.training.devices import choose_device

POLL_SECONDS = 0.1
CHUNK_BYTES = 1 << 16
GRACE_SECONDS = 5
"""Time for the other processes to end after one has failed, in seconds."""
EXIT_CODES = {"succeeded": 0, "interrupted": trainer.EXIT_INTERRUPTED, "failed": 1}
"""Exit codes by the status of the outcome."""
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGABRT)
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform.startswith("linux") else {}


def run(spec: ResolvedSpec, workdir: Path, emit: events.Emit) -> int:
    """Run `spec` like `trainer.run`, on as many processes as the spec requests, and emit a single outcome.

    If a process was killed by a signal and none reported a failure, this process ends by the same signal. For a job on
    several nodes, this is the first one, which emits the events of all.
    """
    try:
        choose_device(spec.job.resources)
        if spec.job.resources.nodes == 1:
            end = _run_processes(spec, workdir, emit)
        else:
            place = place_in()
            first = FirstNode(place, spec, workdir)
            message = f"The {spec.job.resources.nodes} nodes of the job meet at {place.host}:{place.port}."
            emit(events.Log(message=message))
            end = _run_processes(spec, workdir, emit, place, first.failure_elsewhere)
    except FrsError as error:
        return trainer.report_failure(emit, error)
    if not isinstance(end, Outcome):
        return _end_by_signal(end)
    emit(end)
    return EXIT_CODES[end.status]


def join(node: OtherNode) -> Outcome:
    """Run this node's processes of the first node's job; return and report how they have ended.

    Raises FirstNodeEnded if the first node ends before them.
    """
    spec, place = node.job.spec, node.place
    try:
        node.check_files()
        choose_device(spec.job.resources)
        end = _run_processes(spec, node.job.workdir, lambda event: None, place, node.failure_elsewhere)
        if not isinstance(end, Outcome):
            raise NodesUnavailable(f"A process of node {place.node} was killed by {signal.Signals(end).name}.")
    except FrsError as error:
        end = trainer.failure(error)
    node.report(end)
    return end


class TrainerProcesses:
    """The processes of a job on this host. A thread starts them and lives as long as they do."""

    def __init__(self, spec: ResolvedSpec, workdir: Path, folder: Path, place: Place | None = None) -> None:
        self.size = spec.job.resources.trainers_per_node
        self.killed_by: int | None = None
        """Signal that killed the first process to fail, or None."""
        self.signals: list[int] = []
        """Signals to send to all processes once they are running."""
        self._place = place
        self._pipes = [Pipe(duplex=False) for _ in range(self.size)]
        self._unread = {reader: b"" for reader, _ in self._pipes}
        writers = [writer for _, writer in self._pipes]
        arguments = (spec.model_dump_json(), str(workdir), place or str(folder / "group"), writers)
        self._thread = threading.Thread(target=self._launch, args=(folder / "launch", arguments), name="launcher")

    def stream_events(self) -> Iterator[events.Event | None]:
        """Start the processes and yield their events until they have ended; yield None at least every 0.1 s."""
        _start_with_signals_blocked(self._thread)
        while self._thread.is_alive():
            self._send_signals()
            yield from self._read(POLL_SECONDS)
            yield None
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
        os.environ.update({PARENT: str(os.getpid())} | ({} if self._place else LOOPBACK))
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


def run_process(spec: str, workdir: str, rendezvous: str | Place, writers: Sequence[Connection]) -> None:
    """Run one process of a job; torchrun's environment variables define its rank on this host.

    `rendezvous` is the file where the processes of a job on one host meet, or the place of this node. Rank 0 emits all
    its events, the other ranks only their outcome.
    """
    die_with_parent()
    local_rank, resolved = int(os.environ["LOCAL_RANK"]), ResolvedSpec.model_validate_json(spec)
    emit = events.lines_to(os.fdopen(os.dup(writers[local_rank].fileno()), "w"))
    try:
        with _process_group(resolved.job.resources, rendezvous, local_rank):
            emits_all = process_group.rank() == 0
            code = trainer.run(resolved, Path(workdir), emit if emits_all else lambda event: _emit_outcome(event, emit))
            if code not in (0, trainer.EXIT_INTERRUPTED):
                raise SystemExit(code)
    except KeyboardInterrupt:
        raise SystemExit(1) from None
    except Exception as error:
        if not process_group.is_peer_lost(error):
            raise
        _wait_to_be_ended()


def _process_group(resources: Resources, rendezvous: str | Place, local_rank: int) -> AbstractContextManager[None]:
    size, gpu = resources.trainers, local_rank if torch.cuda.is_available() else None
    if isinstance(rendezvous, str):
        return process_group.process_group(local_rank, size, FileStore(rendezvous, size), gpu)
    rank = rendezvous.node * resources.trainers_per_node + local_rank
    return process_group.process_group(rank, size, open_group_store(rendezvous), gpu, rendezvous.address)


def _run_processes(
    spec: ResolvedSpec,
    workdir: Path,
    emit: events.Emit,
    place: Place | None = None,
    failure_elsewhere: Callable[[], Outcome | None] = lambda: None,
) -> Outcome | int:
    """Run the processes of this host; return their outcome, or the signal that killed one.

    They are killed once `failure_elsewhere`, which is called about ten times a second, returns the outcome of another
    node, or raises.
    """
    outcomes = []
    with tempfile.TemporaryDirectory(dir=None if place else workdir.resolve(), prefix=".processes-") as folder:
        group = TrainerProcesses(spec, workdir, Path(folder), place)
        try:
            with _forward_signals(group):
                for event in group.stream_events():
                    if isinstance(event, Outcome):
                        outcomes.append(event)
                    elif event is not None:
                        emit(event)
                    elif (outcome := failure_elsewhere()) is not None:
                        return outcome
        finally:
            group.end()
    return _common_end(outcomes, group)


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


def _common_end(outcomes: Sequence[Outcome], group: TrainerProcesses) -> Outcome | int:
    """Return the outcome of the processes of this host, or the signal that killed one.

    The earliest failure is that of all; without one, the signal that killed a process; otherwise the outcome that all
    processes have in common.
    """
    failures = sorted((o for o in outcomes if o.status == "failed"), key=lambda outcome: outcome.time)
    if failures:
        return failures[0]
    if group.killed_by is not None:
        return group.killed_by
    if len(outcomes) < group.size:
        error = FrsError("One of the job's processes ended without an outcome.", "See the job's log.")
        return trainer.failure(error)
    return max(outcomes, key=lambda outcome: outcome.time)


def _end_by_signal(number: int) -> int:
    """End this process by the signal, so that its parent sees the cause; return the shell's code if it survives."""
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
