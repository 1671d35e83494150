"""Runs in Weights & Biases, or files for its `wandb sync`.

The package `wandb` runs in a process of its own, `worker.tracking.wandb_process`: it can be killed whatever it waits
for, and the worker is spared its threads, exit handlers and processes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import SecretStr

from frs.isolation.process import PARENT
from worker.tracking.tracker import Point, RunEnd, TrackedRun, TrackerRefused, TrackerUnavailable

COMMAND = (sys.executable, "-m", "worker.tracking.wandb_process")
VARIABLES = ("PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
"""Variables that the process inherits, the proxies also in lower case."""
MAX_ANSWER = 10_000
"""Bytes that are read of an answer."""


class WandbTracker:
    """A run of a project; see `worker.tracking.tracker.Tracker`.

    Online, the run has the id of the job and is continued by later attempts; W&B keeps the first value of a step. Its
    local files are removed once they are transferred. Without an API key, each attempt is a folder for `wandb sync`.
    """

    name = "W&B"
    hint = "See FRS_WANDB_PROJECT, FRS_WANDB_URL and FRS_WANDB_API_KEY."

    def __init__(self, project: str, url: str | None, api_key: SecretStr | None, folder: Path) -> None:
        """`project` is `PROJECT` or `ENTITY/PROJECT`; `folder` is for the files of all runs."""
        self._entity, _, self._project = project.rpartition("/")
        self._url, self._api_key, self._root = url, api_key, folder
        self._folder = folder
        self._run: TrackedRun | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        """Held while the process is started or killed, so that none is started after `close`."""

    def start(self, run: TrackedRun) -> None:
        """Start the process and create or continue the run."""
        self._run = run
        self._folder = self._root / f"{run.id}-{run.attempt}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._restart()
        key = self._api_key.get_secret_value() if self._api_key else None
        destination = {"entity": self._entity or None, "project": self._project, "url": self._url, "api_key": key}
        self._request("start", run=asdict(run), folder=str(self._folder), **destination)

    def add_points(self, points: list[Point]) -> None:
        """Log the values; the process leaves out the steps that the run already has."""
        self._start_again_if_dead()
        self._request("points", points=[asdict(point) for point in points])

    def add_file(self, name: str, content: BinaryIO, size: int) -> None:
        """Add a file to the run's files."""
        self._start_again_if_dead()
        path = self._folder / "incoming" / name
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as copy:
            shutil.copyfileobj(content, copy)
        self._request("file", path=str(path))

    def end(self, end: RunEnd) -> None:
        """Finish the run; a job that waits for its next attempt is marked as preempted."""
        self._start_again_if_dead()
        self._request("end", status=end.status, reason=end.reason, is_terminal=end.status.is_terminal)
        if self._api_key is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Kill the process; the package's own helper process ends with it."""
        with self._lock:
            self._is_closed = True
            self._kill()

    def _start_again_if_dead(self) -> None:
        """Continue the run in a new process if something has killed its process."""
        if self._run is not None and self._process is not None and self._process.poll() is not None:
            self.start(self._run)

    def _restart(self) -> None:
        with self._lock:
            self._kill()
            if self._is_closed:
                raise TrackerUnavailable("the job has ended")
            self._process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=self._folder,
                env=self._environment(),
                start_new_session=True,
            )

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _environment(self) -> dict[str, str]:
        """Return the variables of the process. The API key is not among them: other processes could read it there."""
        names = (*VARIABLES, *PROXIES, *map(str.lower, PROXIES))
        inherited = {name: os.environ[name] for name in names if name in os.environ}
        folders = {f"WANDB_{name}_DIR": str(self._folder) for name in ("CONFIG", "CACHE", "DATA")}
        own = {"HOME": str(self._folder), "WANDB_ERROR_REPORTING": "false", PARENT: str(os.getpid())}
        return {**inherited, **folders, **own}

    def _request(self, kind: str, **fields: Any) -> None:
        """Send a request to the process and wait for its answer, one JSON line each."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise TrackerUnavailable("its process does not run")
        try:
            process.stdin.write(json.dumps({"kind": kind, **fields}).encode() + b"\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline(MAX_ANSWER))
        except (OSError, ValueError):
            raise TrackerUnavailable("its process has ended") from None
        if not isinstance(answer, dict):
            raise TrackerUnavailable("its process answers wrongly")
        if reason := answer.get("refused"):
            raise TrackerRefused(reason)
        if reason := answer.get("unavailable"):
            raise TrackerUnavailable(reason)
