"""A Redis and a PostgreSQL of a test's own, to be stopped, frozen and killed."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import redis
from sqlalchemy import create_engine, text


class Redis:
    """On a free loopback port, keeping nothing on disk."""

    def __init__(self, folder: Path) -> None:
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
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """It takes connections and answers nothing: a black hole."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)


class Postgres:
    """On a socket in its folder; durable, as it is to be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"postgresql://postgres@/frs?host={folder}"
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

    def restart(self) -> None:
        """As after a power cut: no client is told, the log is replayed."""
        self._control("restart", "-m", "immediate")

    def kill_backends(self) -> int:
        """Cuts every connection to the service's database; says how many."""
        others = "datname = 'frs' AND pid <> pg_backend_pid()"
        return self.sql(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}", "postgres")

    @contextmanager
    def holding(self, table: str) -> Iterator[None]:
        """Nobody else reads or writes it meanwhile: whoever tries keeps a connection busy."""
        engine = create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
            yield
        engine.dispose()

    def sql(self, statement: str, database: str = "frs") -> int:
        engine = create_engine(self.url.replace("/frs?", f"/{database}?"), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                result = connection.execute(text(statement))
                return result.scalar() if result.returns_rows else 0
        finally:
            engine.dispose()

    def _control(self, *arguments: str) -> None:
        options = f"-c listen_addresses='' -c max_connections=120 -k {self.folder}"
        self._run("pg_ctl", "-w", "-l", f"{self.folder}/log", "-o", options, *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        binaries = postgres_binaries()
        assert binaries
        command = [*self._as_postgres, str(binaries / program), "-D", f"{self.folder}/data", *arguments]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL)


def postgres_binaries() -> Path | None:
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """With a short path, for the socket's sake, and one that another user may enter."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
