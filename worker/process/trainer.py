"""The trainer's process, seen from outside: lines come out of it, it can be asked to stop, and it dies on time.

One thread forks it, reads it, signals it and reaps it, and waits for nothing else: no database, no disk. So a trainer
is killed on time whatever hangs, and the parent-death signal, which follows the forking thread, means the worker.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from typing import cast

from frs.events import MAX_LINE
from worker.process import environment
from worker.process.pipes import Line, PipeReader

COMMAND = (sys.executable, "-u", "-X", "faulthandler", "-m", "frs")
"""Unbuffered and with a fault handler: what it says as it dies gets out, and SIGABRT shows every stack."""
POLL_SECONDS = 0.1
MAX_OUTPUT_LINE = 4096
MAX_QUEUED_LINES = 64
"""Readings nobody has taken yet, of `worker.process.pipes.CHUNK` each; with more, the trainer's pipes fill and it waits."""
DRAIN_SECONDS = 5.0
"""From the end of the trainer to the end of its pipes, should a stranger hold them open."""
ABORT_SECONDS = 5.0


class TrainerProcess:
    def __init__(
        self,
        command: Sequence[str],
        *,
        live_until: float,
        stall_timeout_seconds: float,
        gpus: Sequence[str] | None = None,
    ) -> None:
        """`live_until`: on the monotonic clock; it is killed then unless somebody calls `prolong`."""
        self.exit_code: int | None = None
        """As of `subprocess`; None also after a trainer that was never started."""
        self.hung = False
        """It was silent for `stall_timeout_seconds`, and was ended for that."""
        self.killed = False
        """It did not end by itself in the time it had, or had none."""
        self._command = command
        self._fence = live_until
        self._stop_by: float | None = None
        self._told = False
        self._gpus = gpus
        self.stall_timeout_seconds = stall_timeout_seconds
        """Silence after which it counts as hung."""
        self._heard = 0.0
        self._waiting: queue.SimpleQueue[list[Line] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="trainer", daemon=True)

    @property
    def fenced(self) -> bool:
        """Whether its permission to live has run out."""
        return time.monotonic() > self._fence

    def start(self) -> None:
        """Nothing starts where `stop` came first."""
        self._thread.start()

    def lines(self, patience: float) -> Iterator[Line | None]:
        """Every line until its end; None after `patience` seconds without one."""
        while True:
            try:
                found = self._waiting.get(timeout=patience)
            except queue.Empty:
                yield None
                continue
            if found is None:
                return
            yield from found

    def prolong(self, live_until: float) -> None:
        self._fence = live_until

    def stop(self, within: float) -> None:
        """SIGTERM now; SIGKILL to the whole group after `within` seconds. Of several calls the earliest end counts."""
        until = time.monotonic() + within
        self._stop_by = until if self._stop_by is None else min(until, self._stop_by)

    def end(self) -> None:
        """Returns when it is dead and reaped, with everything it started in its group."""
        self.stop(within=0)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            if self._stop_by is None and not self.fenced:
                self._watch()
            else:
                self.killed = True  # before it was born
        except OSError as error:
            said = f"The trainer could not be started: {error}"
            self._waiting.put([Line("output", said.encode())])
        finally:
            self._waiting.put(None)

    def _watch(self) -> None:
        pipes = PipeReader()
        process = _start(self._command, pipes, environment.trainer_environment(gpus=self._gpus))
        self._heard = time.monotonic()
        try:
            while process.poll() is None:
                self._intervene(process)
                self._read(pipes)
        finally:
            _kill_group(process)
            self.exit_code = process.wait()
        self._drain(pipes)

    def _intervene(self, process: subprocess.Popen[bytes]) -> None:
        now = time.monotonic()
        if now > min(self._fence, self._stop_by or self._fence):
            self.killed = True
            _kill_group(process)
        elif self._stop_by is not None and not self._told:
            self._told = True
            process.terminate()  # the trainer alone: it needs its loaders to get to a checkpoint
        elif now - self._heard > self.stall_timeout_seconds and not self.hung:
            self.hung = self._told = True
            process.send_signal(signal.SIGABRT)
            self.stop(within=ABORT_SECONDS)

    def _read(self, pipes: PipeReader) -> None:
        if self._waiting.qsize() >= MAX_QUEUED_LINES:
            self._heard = time.monotonic()  # whoever is not listened to is not silent
            time.sleep(POLL_SECONDS)
        elif found := pipes.read(POLL_SECONDS):
            self._heard = time.monotonic()
            self._waiting.put(found)

    def _drain(self, pipes: PipeReader) -> None:
        until = time.monotonic() + DRAIN_SECONDS
        while pipes.open and time.monotonic() < until:
            self._waiting.put(pipes.read(POLL_SECONDS))
        pipes.close()


def _start(command: Sequence[str], pipes: PipeReader, its_environment: dict[str, str]) -> subprocess.Popen[bytes]:
    ours, theirs = os.pipe()
    pipes.add("events", FileIO(ours), cap=MAX_LINE)
    try:
        process = subprocess.Popen(
            [*command, "--events-fd", str(theirs)],
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=its_environment,
            start_new_session=True,
            pass_fds=[theirs],
        )
    except OSError:
        pipes.close()
        raise
    finally:
        os.close(theirs)
    pipes.add("output", cast(FileIO, process.stdout), cap=MAX_OUTPUT_LINE)
    return process


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """The trainer and whatever it left running."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
