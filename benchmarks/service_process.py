"""Start an API process on a temporary SQLite or PostgreSQL database, for benchmarks over HTTP."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from sqlalchemy import create_engine, text

from store.db.database import Database, open_database
from store.initialise import initialise
from store.settings import Settings

READY_SECONDS = 60
SQLITE, POSTGRESQL = "sqlite", "postgresql"


@dataclass(frozen=True)
class ServiceProcess:
    """A temporary service: its settings, its database, and the port and environment of its API process."""

    settings: Settings
    database: Database
    """On SQLite without foreign keys, so that it can be filled fast."""
    port: int
    environment: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return self.settings.api_key_file.read_text().strip()

    @contextmanager
    def api(self) -> Iterator[int]:
        """Run the API process and yield its process id."""
        command = [sys.executable, "-m", "api", "--port", str(self.port)]
        process = subprocess.Popen(command, env=self.environment, stderr=subprocess.DEVNULL)
        try:
            self._wait_until_ready()
            yield process.pid
        finally:
            process.terminate()
            process.wait(60)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            try:
                if httpx2.get(f"{self.url}/health/ready").is_success:
                    return
            except httpx2.RequestError:
                pass
            time.sleep(0.1)
        raise TimeoutError("the API did not start")


@contextmanager
def start_service(kind: str, **settings_variables: str) -> Iterator[ServiceProcess]:
    """Yield a service on a temporary database. `settings_variables` are environment variables of the API."""
    with tempfile.TemporaryDirectory(prefix="frs-bench-") as folder, _url(kind, Path(folder)) as url:
        settings = Settings(data=Path(folder), database_url=url)
        initialise(settings)
        environment = os.environ | {"FRS_DATA": folder, "FRS_DATABASE_URL": url} | settings_variables
        database = open_database(url, foreign_keys=False)
        yield ServiceProcess(settings, database, free_port(), environment)
        database.engine.dispose()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process in seconds, user and system."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def has_postgresql() -> bool:
    return bool(_binaries())


@contextmanager
def _url(kind: str, folder: Path) -> Iterator[str]:
    if kind == SQLITE:
        yield f"sqlite:///{folder / 'frs.db'}"
        return
    with _postgresql() as url:
        yield url


@contextmanager
def _postgresql() -> Iterator[str]:
    """Run Debian's PostgreSQL with its default settings except fsync: the benchmarks measure reads."""
    folder = tempfile.mkdtemp(prefix="frs-postgresql-")
    as_postgres: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        as_postgres = ["runuser", "-u", "postgres", "--"]

    def run(program: str, *arguments: str) -> None:
        command = [*as_postgres, str(_binaries()[-1] / program), "-D", f"{folder}/data", *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    run("initdb", "-U", "postgres", "-A", "trust", "--no-sync")
    options = f"-c listen_addresses='' -c fsync=off -c max_wal_size=4GB -k {folder}"
    run("pg_ctl", "-w", "-l", f"{folder}/log", "-o", options, "start")
    try:
        admin = create_engine(f"postgresql://postgres@/postgres?host={folder}", isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text("CREATE DATABASE frs"))
        admin.dispose()
        yield f"postgresql://postgres@/frs?host={folder}"
    finally:
        run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(folder)


def _binaries() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"))
