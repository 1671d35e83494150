"""The engine's process: lines are read from it, it can be asked to stop, and it is killed on time.

One thread forks, reads, signals and reaps the process, and waits for nothing else: no database, no disk. The trainer is
therefore killed on time whatever else hangs. The parent-death signal, which the kernel sends when the forking thread
ends, is sent when the worker ends.
"""

import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from enum import Enum
from io import FileIO
from typing import cast

from frs.events import MAX_LINE
from worker.process.environment import trainer_environment
from worker.process.pipes import Line, PipeReader

COMMAND = (sys.executable, "-u", "-X", "faulthandler", "-m", "frs")
"""Unbuffered, so that the last output before a death is read; the fault handler prints every stack on SIGABRT."""
POLL_SECONDS = 0.1
"""Interval of the checks whether the process has ended or must be signalled."""
MAX_OUTPUT_LINE = 4096
"""Bytes to which a line of output is truncated."""
MAX_QUEUED_BATCHES = 64
"""Unread batches of lines, each of at most `worker.process.pipes.CHUNK` bytes a pipe. When the queue is full, the pipes
are not read, so they fill and the trainer blocks."""
DRAIN_SECONDS = 5.0
"""Time to read the pipes after the trainer's end; another process may still hold them open."""
ABORT_SECONDS = 5.0
"""Time between SIGABRT, which prints the stacks of a stalled trainer, and SIGKILL."""


class TrainerState(Enum):
    """What happened to a trainer last. Only its own thread changes the state, and an ended trainer keeps it."""

    RUNNING = "running"
    """Not started yet, or running, or ended by itself."""
    STOPPING = "stopping"
    """SIGTERM was sent."""
    STALLED = "stalled"
    """It was silent for `stall_timeout_seconds`: SIGABRT was sent, SIGKILL follows."""
    KILLED = "killed"
    """It was killed at the fence or at the end of `stop`'s time, or not started because of either."""


class TrainerProcess:
    """A child process of the engine, and the thread that supervises it.

    The thread owns the process and its pipes. The methods may be called from any thread. The process is killed when
    the fence passes, `stop`'s time ends or `kill` is called; nothing is raised if it cannot be started: the error is
    among its lines, and `exit_code` is None.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        fence_at: float,
        stall_timeout_seconds: float,
        gpus: Sequence[str] | None = None,
        network: bool = False,
    ) -> None:
        """Prepare the process without starting it. `fence_at` is on the monotonic clock; `extend_fence` moves it."""
        self.state = TrainerState.RUNNING
        self.exit_code: int | None = None
        """Exit code as of `subprocess`; None while it runs and if it was never started."""
        self.stall_timeout_seconds = stall_timeout_seconds
        """Silence after which it counts as stalled."""
        self._command = command
        self._gpus = gpus
        self._network = network
        self._fence_at = fence_at
        self._kill_at = math.inf
        self._last_line_at = 0.0
        self._batches: queue.SimpleQueue[list[Line] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="trainer", daemon=True)

    @property
    def fenced(self) -> bool:
        """Whether the fence has passed, so that the process must be dead."""
        return time.monotonic() > self._fence_at

    def start(self) -> None:
        """Start the thread, which starts the process unless `stop` was called or the fence has passed."""
        self._thread.start()

    def lines(self, timeout: float) -> Iterator[Line | None]:
        """Yield every line until the process has ended; yield None after `timeout` seconds without a line."""
        while True:
            try:
                batch = self._batches.get(timeout=timeout)
            except queue.Empty:
                yield None
                continue
            if batch is None:
                return
            yield from batch

    def extend_fence(self, fence_at: float) -> None:
        """Let the process live until `fence_at` on the monotonic clock."""
        self._fence_at = fence_at

    def stop(self, within: float) -> None:
        """Send SIGTERM now, and SIGKILL to the process group after `within` seconds; of several calls, the earliest."""
        self._kill_at = min(self._kill_at, time.monotonic() + within)

    def kill(self) -> None:
        """Kill the process and its group; return when the process is dead and reaped."""
        self.stop(within=0)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            if self._kill_at == math.inf and not self.fenced:
                self._supervise()
            else:
                self.state = TrainerState.KILLED
        except OSError as error:
            message = f"The trainer could not be started: {error}"
            self._batches.put([Line("output", message.encode())])
        finally:
            self._batches.put(None)

    def _supervise(self) -> None:
        pipes = PipeReader()
        process = _start(self._command, pipes, trainer_environment(gpus=self._gpus, network=self._network))
        self._last_line_at = time.monotonic()
        try:
            while process.poll() is None:
                self._signal_when_due(process)
                self._read(pipes)
        finally:
            _kill_group(process)
            self.exit_code = process.wait()
        self._drain(pipes)

    def _signal_when_due(self, process: subprocess.Popen[bytes]) -> None:
        now = time.monotonic()
        if now > min(self._fence_at, self._kill_at):
            if self.state is not TrainerState.STALLED:
                self.state = TrainerState.KILLED
            _kill_group(process)
        elif self.state is TrainerState.RUNNING and self._kill_at < math.inf:
            self.state = TrainerState.STOPPING
            process.terminate()  # the trainer alone: it needs its data loaders to reach a checkpoint
        elif self.state is not TrainerState.STALLED and now - self._last_line_at > self.stall_timeout_seconds:
            self.state = TrainerState.STALLED
            process.send_signal(signal.SIGABRT)
            self.stop(within=ABORT_SECONDS)

    def _read(self, pipes: PipeReader) -> None:
        if self._batches.qsize() >= MAX_QUEUED_BATCHES:
            self._last_line_at = time.monotonic()  # a trainer whose lines are not read does not count as silent
            time.sleep(POLL_SECONDS)
        elif lines := pipes.read(POLL_SECONDS):
            self._last_line_at = time.monotonic()
            self._batches.put(lines)

    def _drain(self, pipes: PipeReader) -> None:
        until = time.monotonic() + DRAIN_SECONDS
        while pipes.is_open and time.monotonic() < until:
            self._batches.put(pipes.read(POLL_SECONDS))
        pipes.close()


def _start(command: Sequence[str], pipes: PipeReader, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    read_end, write_end = os.pipe()
    pipes.add("events", FileIO(read_end), cap=MAX_LINE)
    try:
        process = subprocess.Popen(
            [*command, "--events-fd", str(write_end)],
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            pass_fds=[write_end],
        )
    except OSError:
        pipes.close()
        raise
    finally:
        os.close(write_end)
    pipes.add("output", cast(FileIO, process.stdout), cap=MAX_OUTPUT_LINE)
    return process


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the trainer and every process that it left in its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
