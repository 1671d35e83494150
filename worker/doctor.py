"""Checks of this host for the service: `python -m worker.doctor`, part of `frs doctor`.

Settings, folders, disk, database, clock, broker, artifacts, isolation of trainers, then those of the engine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from sqlalchemy import select

from frs import host_check
from frs.host_check import HostCheck
from store.artifacts.free_space import describe_lack_of_space, disks
from store.artifacts.storage import open_artifacts
from store.db import schema
from store.db.database import now, open_database
from store.initialise import make_folders
from store.scheduling import worker_registry
from store.scheduling.wakeups import celery_app
from store.settings import Settings
from store.settings_report import invalid_settings, unknown_variables
from worker.process.trainer import COMMAND

MAX_CLOCK_DIFFERENCE_SECONDS = 5.0
LITTLE_SPACE = 10 << 30
"""Free space in bytes below which a few jobs may fill the disk."""
_INIT_HINT = "`frs up` and `python -m store init` create it."
_DATABASE_HINT = "Check FRS_DATABASE_URL and that the database server is running."
_BROKER_HINT = "Check FRS_BROKER_URL. Without a broker, jobs start with the next poll, `FRS_POLL_SECONDS` apart."
_ARTIFACTS_HINT = "Check FRS_ARTIFACTS_URL, AWS_ENDPOINT_URL and the credentials."
_ISOLATION = "from frs.isolation.jail import isolate; print(isolate(False).network)"


def main() -> None:
    """Print the checks. Raise SystemExit, with 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m worker.doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object per check")
    as_json, console, failed = parser.parse_args().json, Console(), False
    for check in check_host():
        failed |= check.status == "error"
        if as_json:
            print(check.model_dump_json(), flush=True)
        else:
            console.print(host_check.render(check), highlight=False)
    raise SystemExit(failed)


def check_host() -> Iterator[HostCheck]:
    """Yield the checks of this host. Without valid settings there is only one."""
    try:
        settings = Settings()
    except ValidationError as error:
        yield host_check.error("settings", invalid_settings(error), "docs/settings.md lists all settings.")
        return
    unknown = list(unknown_variables())
    yield from (host_check.warning("settings", message, "Correct or remove the variable.") for message in unknown)
    if not unknown:
        yield host_check.ok("settings", f"data in {settings.data}")
    yield from check_service(settings)
    yield from _check_engine(settings)


def check_service(settings: Settings) -> Iterator[HostCheck]:
    """Yield the checks of what the service uses on this host and over the network."""
    yield from host_check.run("isolation", _check_isolation, "See docs/reliability.md.")
    yield from host_check.run("broker", lambda: _check_broker(settings), _BROKER_HINT)
    if not settings.data.exists():
        yield host_check.warning("folders", f"{settings.data} does not exist.", _INIT_HINT)
        return
    user = f"Give user {os.getuid()} write access, or set another folder with FRS_DATA."
    yield from host_check.run("folders", lambda: _check_folders(settings), user)
    yield from host_check.run("disk", lambda: _check_disk(settings), user)
    yield from host_check.run("database", lambda: _check_database(settings), _DATABASE_HINT)
    yield from host_check.run("artifacts", lambda: _check_artifacts(settings), _ARTIFACTS_HINT)


def _check_folders(settings: Settings) -> Iterable[HostCheck]:
    make_folders(settings)
    for folder in (settings.data, settings.work_root, settings.uploads_root):
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
    for folder in (settings.datasets_root, settings.models_root):
        if not os.access(folder, os.R_OK | os.X_OK):
            yield host_check.warning(
                "folders", f"{folder} cannot be read.", f"Create it, and let user {os.getuid()} read it."
            )
    yield host_check.ok("folders", f"{settings.data} can be written by user {os.getuid()}")


def _check_disk(settings: Settings) -> Iterable[HostCheck]:
    if lack := describe_lack_of_space(settings):
        yield host_check.error("disk", f"This host {lack}", "Free disk space; `frs usage` shows what the service uses.")
        return
    smallest = min(disks(settings), key=lambda disk: disk.free)
    message = f"{smallest.free / (1 << 30):,.1f} GiB free for {smallest.name}"
    if smallest.free < LITTLE_SPACE:
        yield host_check.warning(
            "disk", message, "A job may need several GB; FRS_DATA moves all files to another disk."
        )
    else:
        yield host_check.ok("disk", message)


def _check_database(settings: Settings) -> Iterable[HostCheck]:
    database = open_database(settings.database_url)
    schema.check(database)
    with database.write() as session:  # takes SQLite's write lock
        difference = session.scalars(select(now())).one() - time.time()
        workers = len(worker_registry.alive(session))
    yield host_check.ok("database", f"{database.engine.dialect.name}, current revision; {workers} workers alive")
    if abs(difference) > MAX_CLOCK_DIFFERENCE_SECONDS:
        message = f"The database's clock differs by {difference:+.0f} s from this host's."
        yield host_check.warning("clock", message, "Run NTP on both; leases follow the database's clock alone.")


def _check_broker(settings: Settings) -> Iterable[HostCheck]:
    scheme = settings.broker_url.split(":")[0]
    if scheme != "filesystem":
        with celery_app(settings).connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=5)
    yield host_check.ok("broker", scheme)


def _check_artifacts(settings: Settings) -> Iterable[HostCheck]:
    artifacts, content = open_artifacts(settings), os.urandom(1024)
    digest = sha256(content).hexdigest()
    key = f"uploads/{digest}"
    with tempfile.TemporaryDirectory(dir=settings.work_root) as folder:
        source = Path(folder) / "check"
        source.write_bytes(content)
        artifacts.put(source, key, digest)
        try:
            with artifacts.open(key) as stored:
                is_equal = stored.read() == content
        finally:
            artifacts.delete(key)
    place = settings.artifacts_root or "object storage"
    if is_equal:
        yield host_check.ok("artifacts", f"{place}: a file was written, read and deleted")
    else:
        yield host_check.error("artifacts", f"{place} returned other content than was written.", "Check the storage.")


def _check_isolation() -> Iterable[HostCheck]:
    command = [sys.executable, "-c", _ISOLATION]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    if output.strip() == "False":
        yield host_check.ok("isolation", "trainers run without network")
    else:
        hint = "Allow user namespaces (kernel.unprivileged_userns_clone, or the container's seccomp profile)."
        yield host_check.warning("isolation", "The kernel does not allow to isolate trainers from the network.", hint)


def _check_engine(settings: Settings) -> Iterator[HostCheck]:
    """Yield the engine's checks, which import torch in a process of their own."""
    command = [*COMMAND, "doctor", "--json", "--models", str(settings.models_root)]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    lines = [line for line in completed.stdout.splitlines() if line.startswith("{")]
    yield from map(HostCheck.model_validate_json, lines)
    if not lines:
        hint = "Install the engine: `make setup`, or pip install 'frs-distill[engine]'."
        yield host_check.error("engine", completed.stderr.strip().split("\n")[-1][:500], hint)


if __name__ == "__main__":
    main()
