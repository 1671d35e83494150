"""API processes, Redis and PostgreSQL servers, which tests and benchmarks start, freeze and kill."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx2
import redis
from sqlalchemy import create_engine, text

from store.settings import Settings

ROOT = Path(__file__).parents[1]


class ApiProcess:
    """`python -m api` on a free loopback port; it can be started and stopped repeatedly."""

    def __init__(self, settings: Settings, log: Path | None = None, **variables: str) -> None:
        """Choose a port. `log` is the file of its output; `variables` are further environment variables."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = settings.api_key_file.read_text().strip()
        self.headers = {"Authorization": f"Bearer {self.key}"}
        self.log = log or settings.data / "api.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._variables = environment(settings) | {"FRS_PARENT_PID": str(os.getpid())} | variables

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGTERM)

    @property
    def pid(self) -> int:
        """Id of the running process."""
        assert self.process
        return self.process.pid

    def start(self) -> None:
        """Start the process and wait until it answers. Raises AssertionError if it ends, or after 60 s."""
        command = [sys.executable, "-m", "api", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=os.environ | self._variables, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not self._is_ready():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def stop(self, signal_number: signal.Signals) -> float:
        """Send the signal and wait for the process to end; return the duration in seconds."""
        assert self.process
        began = time.monotonic()
        self.process.send_signal(signal_number)
        self.process.wait(60)
        return time.monotonic() - began

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def resident_bytes(self) -> int:
        """Return the resident memory of the process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process, user and system."""
        ticks = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def _is_ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/health/ready").is_success
        except httpx2.RequestError:
            return False


def environment(settings: Settings, **changes: Any) -> dict[str, str]:
    """Return environment variables that give another process these settings, with these changes."""
    values = settings.model_dump(exclude_unset=True) | changes
    return {"PYTHONPATH": str(ROOT)} | {f"FRS_{name.upper()}": str(value) for name, value in values.items()}


class Redis:
    """A Redis server on a free loopback port, without persistence."""

    def __init__(self, folder: Path) -> None:
        """Choose a port; the server runs in this folder."""
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, socket_timeout=5)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers. Raises AssertionError after 10 s."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(["redis-server", *options], cwd=self.folder, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.05)
        raise AssertionError("redis-server does not answer")

    def stop(self) -> None:
        """Kill the server."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Suspend the server: it accepts connections and answers nothing."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the suspended server."""
        assert self.process
        self.process.send_signal(signal.SIGCONT)


class Postgres:
    """A PostgreSQL server on a socket in its folder, with an empty database `frs`."""

    def __init__(self, folder: Path, *options: str) -> None:
        """Prepare a server whose files lie in this folder. `options` are settings such as `fsync=off`."""
        self.folder = folder
        self.options = ["listen_addresses=''", "max_connections=200", *options]
        self.url = self.url_of("frs")
        self._as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._as_postgres:
            shutil.chown(folder, "postgres")

    def __enter__(self) -> Self:
        self._run("initdb", "-U", "postgres", "-A", "trust", "--no-sync")
        self._control("start")
        self.sql("CREATE DATABASE frs", "postgres")
        return self

    def __exit__(self, *_: object) -> None:
        self._control("stop", "-m", "immediate")

    def url_of(self, database: str, role: str = "postgres") -> str:
        """Return the URL of a database, for the superuser or another role."""
        return f"postgresql://{role}@/{database}?host={self.folder}"

    def restart(self) -> None:
        """Restart without a shutdown, as after a power cut: connections break, and the server replays its log."""
        self._control("restart", "-m", "immediate")

    def kill_backends(self) -> int:
        """Close every connection to the service's database; return their number."""
        others = "datname = 'frs' AND pid <> pg_backend_pid()"
        return self.sql(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}", "postgres")

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Lock the table: every other read or write of it waits and occupies its connection."""
        engine = create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
            yield
        engine.dispose()

    def sql(self, statement: str, database: str = "frs") -> int:
        """Execute the statement; return the first column of its first row, or 0 if it returns no rows."""
        engine = create_engine(self.url_of(database), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                result = connection.execute(text(statement))
                return result.scalar() if result.returns_rows else 0
        finally:
            engine.dispose()

    def _control(self, *arguments: str) -> None:
        options = " ".join([*(f"-c {option}" for option in self.options), f"-k {self.folder}"])
        self._run("pg_ctl", "-w", "-l", f"{self.folder}/log", "-o", options, *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        binaries = postgres_binaries()
        assert binaries
        command = [*self._as_postgres, str(binaries / program), "-D", f"{self.folder}/data", *arguments]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL)


def postgres_binaries() -> Path | None:
    """Return the folder of the newest installed PostgreSQL's programs."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Create a folder with a path that is short enough for a socket and accessible to another user."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """Return a free TCP port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
