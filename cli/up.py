"""`frs up`: run the API and a worker on one machine, as child processes of this one."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import IO

import httpx2

from frs.isolation.process import PARENT
from frs_client import ServiceError

GRACE_SECONDS = 45.0
"""Time between SIGTERM and SIGKILL, in which the worker's trainers write their checkpoints."""
READY_SECONDS = 60.0
LOOPBACK = "127.0.0.1"
MAX_EXITS, EXIT_WINDOW_SECONDS = 5, 60.0
"""A child that exits this often within this time is not restarted."""


class LocalService:
    """The API and a worker on one data folder.

    A context manager: entering starts both and waits until they are ready; leaving stops both and waits for their end.
    """

    def __init__(self, data: Path, host: str, port: int, datasets: Path | None, models: Path | None) -> None:
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self.host, self.port = host, port
        self.data = data.absolute()
        self.environment = os.environ | {"FRS_DATA": str(self.data), PARENT: str(os.getpid())}
        self.environment |= {"FRS_DATASETS_ROOT": str(datasets.absolute())} if datasets else {}
        self.environment |= {"FRS_MODELS_ROOT": str(models.absolute())} if models else {}
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self._arguments: dict[str, tuple[str, ...]] = {}
        self._exit_times: defaultdict[str, list[float]] = defaultdict(list)

    def __enter__(self) -> "LocalService":
        self._lock = lock_folder(self.data)
        _check_port(self.host, self.port)
        self._run("store", "init")
        (self.data / "url").write_text(f"{self.url}\n")
        try:
            self._start("api", "--host", self.host, "--port", str(self.port))
            self._start("worker")
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._lock.close()

    def watch(self, report: Callable[[str], None]) -> None:
        """Restart each child that exits and call `report` with a message. Never returns.

        Raises ServiceError if a child exits `MAX_EXITS` times within `EXIT_WINDOW_SECONDS`.
        """
        while True:
            for name, child in list(self.children.items()):
                if child.poll() is not None:
                    self._restart(name, child.returncode, report)
            time.sleep(0.5)

    def stop(self) -> None:
        """Send SIGTERM to both children, and SIGKILL to those still running after `GRACE_SECONDS`."""
        for child in self.children.values():
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for child in self.children.values():
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def log_of(self, name: str) -> Path:
        """Return the path of the log file of the child `name`: `api` or `worker`."""
        return self.data / "logs" / f"{name}.log"

    def _run(self, *module: str) -> None:
        completed = subprocess.run(
            [sys.executable, "-m", *module], env=self.environment, capture_output=True, text=True
        )
        if completed.returncode:
            raise ServiceError(f"`python -m {' '.join(module)}` failed: {completed.stderr.strip()[-2000:]}")

    def _start(self, name: str, *arguments: str) -> None:
        self._arguments[name] = arguments
        log = self.log_of(name)
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as output:
            self.children[name] = subprocess.Popen(
                [sys.executable, "-m", name, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches only this process, which stops the children in order
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            self._check_children()
            try:
                if httpx2.get(f"{self.url}/health/ready", timeout=2, trust_env=False).is_success:  # without proxies
                    return
            except httpx2.RequestError:
                pass
            time.sleep(0.1)
        raise ServiceError(f"The service was not ready within {READY_SECONDS:.0f} s.", f"See {self.log_of('api')}.")

    def _check_children(self) -> None:
        for name, child in self.children.items():
            if child.poll() is not None:
                raise ServiceError(f"The {name} exited with code {child.returncode}.", f"See {self.log_of(name)}.")

    def _restart(self, name: str, code: int, report: Callable[[str], None]) -> None:
        now = time.monotonic()
        recent = [*(exit_time for exit_time in self._exit_times[name] if now - exit_time < EXIT_WINDOW_SECONDS), now]
        self._exit_times[name] = recent
        if len(recent) >= MAX_EXITS:
            message = f"The {name} exited {MAX_EXITS} times within {EXIT_WINDOW_SECONDS:.0f} s, last with code {code}."
            raise ServiceError(message, f"See {self.log_of(name)}.")
        report(f"The {name} exited with code {code} and is restarted; see {self.log_of(name)}.")
        self._start(name, *self._arguments[name])


def lock_folder(data: Path) -> IO[str]:
    """Return a file that locks the data folder until it is closed or this process ends.

    Raises ServiceError if another process holds the lock, or if the folder cannot be written.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
        file = (data / "up.pid").open("a+")
    except OSError as error:
        raise ServiceError(f"{data} cannot be written: {error.strerror}.", "Choose another folder: --data.") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        pid = file.read().strip() or "unknown"
        file.close()
        hint = f"Stop it (`kill {pid}`), or choose another folder with --data."
        raise ServiceError(f"`frs up` already runs on {data}, as process {pid}.", hint) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def free_port() -> int:
    """Return a TCP port that is free on the loopback interface."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _check_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceError(f"Cannot listen on {host}:{port}: {error.strerror}.", "Choose another --port.") from None
