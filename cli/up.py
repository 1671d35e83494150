"""`frs up`: the whole service on one machine, as two child processes that end with us."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import httpx2

from cli.client import ServiceError
from frs.isolation.process import PARENT

GRACE_SECONDS = 45.0
"""For a worker to let its trainer write a checkpoint, before it is killed."""
READY_SECONDS = 60.0
IN_VAIN, IN_VAIN_SECONDS = 5, 60.0
"""A child that ends so often within so long is not started again."""


class LocalService:
    """API and worker over one data folder. A context manager: leaving it ends both, and waits until they have."""

    def __init__(self, data: Path, host: str, port: int, datasets: Path | None, models: Path | None) -> None:
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self.host, self.port = host, port
        self.data = data.absolute()
        self.environment = os.environ | {"FRS_DATA": str(self.data), PARENT: str(os.getpid())}
        self.environment |= {"FRS_DATASETS_ROOT": str(datasets.absolute())} if datasets else {}
        self.environment |= {"FRS_MODELS_ROOT": str(models.absolute())} if models else {}
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self._arguments: dict[str, tuple[str, ...]] = {}
        self._ends: defaultdict[str, list[float]] = defaultdict(list)

    def __enter__(self) -> "LocalService":
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

    def watch(self, tell: Callable[[str], None]) -> None:
        """Returns never: starts a child that ended by itself again, and says so. Raises ServiceError where that is in vain."""
        while True:
            for name, child in list(self.children.items()):
                if child.poll() is not None:
                    self._start_again(name, child.returncode, tell)
            time.sleep(0.5)

    def stop(self) -> None:
        """SIGTERM to both, SIGKILL to whoever outlives the grace."""
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
        return self.data / "logs" / f"{name}.log"

    def _run(self, *module: str) -> None:
        done = subprocess.run([sys.executable, "-m", *module], env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise ServiceError(f"`python -m {' '.join(module)}` failed: {done.stderr.strip()[-2000:]}")

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
                start_new_session=True,  # Ctrl-C is for us; we tell them in order
            )

    def _start_again(self, name: str, code: int, tell: Callable[[str], None]) -> None:
        now = time.monotonic()
        recent = self._ends[name] = [*(end for end in self._ends[name] if now - end < IN_VAIN_SECONDS), now]
        if len(recent) >= IN_VAIN:
            said = f"The {name} ended {IN_VAIN} times within {IN_VAIN_SECONDS:.0f} s, last with code {code}."
            raise ServiceError(said, f"See {self.log_of(name)}.")
        tell(f"The {name} ended with code {code} and is started again; see {self.log_of(name)}.")
        self._start(name, *self._arguments[name])

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            self._check_children()
            try:
                if httpx2.get(f"{self.url}/health/ready", timeout=2).is_success:
                    return
            except httpx2.RequestError:
                pass
            time.sleep(0.1)
        raise ServiceError(f"The service was not ready within {READY_SECONDS:.0f} s.", f"See {self.log_of('api')}.")

    def _check_children(self) -> None:
        for name, child in self.children.items():
            if child.poll() is not None:
                raise ServiceError(f"The {name} ended with code {child.returncode}.", f"See {self.log_of(name)}.")


def _check_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceError(f"Cannot listen on {host}:{port}: {error.strerror}.", "Choose another --port.") from None
