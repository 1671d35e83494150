"""`make backup TO=FOLDER` and `make restore FROM=FOLDER` for the running containers. Standard library only.

A backup is a folder with a database dump, the artifacts (unless they are in object storage) and the SHA-256 of both.
The service keeps running meanwhile. A restore first loads both next to the current data and replaces that data once
both are complete.
"""

import argparse
import fcntl
import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
DUMP, ARTIFACTS, SUMS = "database.dump", "artifacts.tar", "sha256sums"
STORE_COMMAND = ("run", "--rm", "--no-deps", "-T", "migrate", "python", "-m", "store")
"""Arguments that run `python -m store` in a new container with the data volume."""
_BLOCK = 1 << 20


class BackupError(Exception):
    """The reason that a backup or restore is not possible, and the next step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["backup", "restore"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    try:
        with exclusive_lock():
            {"backup": backup, "restore": restore}[arguments.action](arguments.folder.absolute())
    except BackupError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"Command failed: {' '.join(error.cmd)}")


def backup(to: Path) -> None:
    """Write a backup to the folder `to`.

    Raises BackupError or CalledProcessError on failure; `to` then does not exist.
    """
    if to.exists():
        raise BackupError(f"{to} already exists; name another folder.")
    part = to.with_name(f".{to.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, mode=0o700)
    try:
        if in_object_storage():
            print("The artifacts are in object storage: back up the bucket separately. Saving the database.")
            dump(part / DUMP)
        else:
            store("exec", "api", "backup-begin")
            try:
                dump(part / DUMP)
                receive(part / ARTIFACTS, "exec", "-T", "api", "python", "-m", "store", "backup-pack")
            finally:
                store("exec", "api", "backup-end")
        (part / SUMS).write_text("".join(f"{digest(file)}  {file.name}\n" for file in sorted(part.iterdir())))
        subprocess.run(["sync"], check=True)
        part.rename(to)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(
        f"Backup written to {to}. It does not include .env and .secrets/: keep them too. "
        f"To restore: make restore FROM={to}"
    )


def restore(source: Path) -> None:
    """Replace the database and the artifacts with those of a backup.

    Raises BackupError or CalledProcessError on failure. Nothing is replaced until both are loaded completely.
    """
    check(source)
    compose("up", "--detach", "postgres", "redis")
    wait_for_postgres()
    try:
        sql("DROP DATABASE IF EXISTS restored")
        sql("CREATE DATABASE restored")
        command = ("pg_restore", "--username=frs", "--dbname=restored", "--no-owner", "--no-acl", "--exit-on-error")
        send(source / DUMP, "exec", "-T", "postgres", *command)
        if not in_object_storage():
            size = (source / ARTIFACTS).stat().st_size
            send(source / ARTIFACTS, *STORE_COMMAND, "restore-unpack", "--bytes", str(size))
    except BaseException:
        sql("DROP DATABASE IF EXISTS restored")
        in_object_storage() or compose(*STORE_COMMAND, "restore-discard")
        raise
    compose("stop", "api", "worker")
    sql("DROP DATABASE IF EXISTS frs WITH (FORCE)")
    sql("ALTER DATABASE restored RENAME TO frs")
    if not in_object_storage():
        compose(*STORE_COMMAND, "restore-replace")
    compose(*STORE_COMMAND, "restore-release")
    compose("up", "--detach")
    print("Restored. Jobs that ran when the backup was made continue from their last checkpoint.")


def check(source: Path) -> None:
    """Raise BackupError unless `source` is a complete backup whose artifacts match the configured storage."""
    try:
        listed = dict(line.split()[::-1] for line in (source / SUMS).read_text().splitlines())
    except OSError:
        raise BackupError(f"{source} is no backup: it does not contain {SUMS}.") from None
    for name, sha256 in listed.items():
        if not (source / name).is_file() or digest(source / name) != sha256:
            raise BackupError(f"{source / name} is damaged; nothing was changed.")
    if (ARTIFACTS in listed) == in_object_storage():
        current = "in object storage" if in_object_storage() else "in a folder"
        raise BackupError(
            f"{source} was made with another artifact storage: FRS_ARTIFACTS_URL in .env has them {current}."
        )


def dump(file: Path) -> None:
    receive(file, "exec", "-T", "postgres", "pg_dump", "--username=frs", "--format=custom", "frs")


def sql(statement: str) -> None:
    client = ("psql", "--quiet", "--username=frs", "--dbname=postgres", "--set=ON_ERROR_STOP=1")
    compose("exec", "-T", "postgres", *client, f"--command={statement}")


def wait_for_postgres(seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    command = compose_command("exec", "-T", "postgres", "pg_isready", "--quiet", "--username=frs", "--host=127.0.0.1")
    while subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise BackupError("PostgreSQL does not answer; run docker compose logs postgres.")
        time.sleep(1)


def in_object_storage() -> bool:
    return environment("FRS_ARTIFACTS_URL").startswith("s3://")


def environment(name: str) -> str:
    """Return the value of an environment variable in the service's containers; empty if it is not set.

    Raises BackupError if there is no .env or the compose file is invalid.
    """
    if not (ROOT / ".env").is_file():
        raise BackupError(f"{ROOT / '.env'} does not exist; run make env.")
    completed = subprocess.run(compose_command("config"), cwd=ROOT, capture_output=True, text=True, check=False)
    if completed.returncode:
        raise BackupError(completed.stderr.strip())
    values = [
        line.partition(": ")[2].strip().strip("'\"") for line in completed.stdout.splitlines() if f" {name}: " in line
    ]
    return values[0] if values else ""


def store(mode: str, service: str, step: str) -> None:
    compose(mode, "-T", service, "python", "-m", "store", step)


def receive(file: Path, *arguments: str) -> None:
    """Write the output of a compose command to `file`. Raises CalledProcessError if the command fails."""
    with (
        subprocess.Popen(compose_command(*arguments), cwd=ROOT, stdout=subprocess.PIPE) as process,
        file.open("wb") as out,
    ):
        assert process.stdout
        copy(process.stdout, out, file.name)
    _check_exit(process)


def send(file: Path, *arguments: str) -> None:
    """Run a compose command with `file` as its input. Raises CalledProcessError if the command fails."""
    with (
        subprocess.Popen(compose_command(*arguments), cwd=ROOT, stdin=subprocess.PIPE) as process,
        file.open("rb") as source,
    ):
        assert process.stdin
        try:
            copy(source, process.stdin, file.name)
            process.stdin.close()
        except BrokenPipeError:  # the command has ended; its exit status is checked below
            pass
    _check_exit(process)


def copy(source: IO[bytes], target: IO[bytes], name: str) -> None:
    total, shown = 0, 0.0
    while block := source.read(_BLOCK):
        target.write(block)
        total += len(block)
        if sys.stderr.isatty() and time.monotonic() - shown > 0.5:
            shown = time.monotonic()
            print(f"\r{name}: {total / 1e6:,.0f} MB", end="", file=sys.stderr)
    start = "\r" if sys.stderr.isatty() else ""
    print(f"{start}{name}: {total / 1e6:,.1f} MB", file=sys.stderr)


def compose(*arguments: str) -> None:
    subprocess.run(compose_command(*arguments), cwd=ROOT, stdin=subprocess.DEVNULL, check=True)


def compose_command(*arguments: str) -> list[str]:
    return [*_which_compose(), *arguments]


@cache
def _which_compose() -> tuple[str, ...]:
    """Return the compose command of this host. Raises BackupError if there is none."""
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return ("docker", "compose")
    if shutil.which("docker-compose"):
        return ("docker-compose",)
    raise BackupError("Neither `docker compose` nor docker-compose is installed.")


def digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def exclusive_lock() -> Iterator[None]:
    """Raise BackupError if another backup or restore of this checkout is running."""
    with Path(__file__).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError("Another backup or restore is running.") from None
        yield


def _check_exit(process: "subprocess.Popen[bytes]") -> None:
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)


if __name__ == "__main__":
    main()
