"""`make backup TO=FOLDER` and `make restore FROM=FOLDER`, of the containers that run. Needs nothing but Python.

A backup is a folder: the database's dump, the artifacts unless they are in object storage, what both hash to. The service
goes on meanwhile. A restore puts both beside what is there, and in its place when they are whole.
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
_BLOCK = 1 << 20


class BackupError(Exception):
    """What keeps it from being done, and the next step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["backup", "restore"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    try:
        with alone():
            {"backup": backup, "restore": restore}[arguments.action](arguments.folder.absolute())
    except BackupError as refused:
        sys.exit(str(refused))
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed: {' '.join(error.cmd)}")


def backup(to: Path) -> None:
    """Raises BackupError, CalledProcessError; then there is no `to`."""
    if to.exists():
        raise BackupError(f"{to} is there already; name another folder.")
    part = to.with_name(f".{to.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, mode=0o700)
    try:
        if in_object_storage():
            print("The artifacts are in object storage, whose own backup is theirs; saving the database.")
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
    print(f"{to}: keep .env and .secrets/ too, they are not in it. make restore FROM={to} brings it back.")


def restore(source: Path) -> None:
    """Raises BackupError, CalledProcessError; until both halves are whole nothing has changed."""
    check(source)
    compose("up", "--detach", "postgres", "redis")
    wait_for_postgres()
    try:
        sql("DROP DATABASE IF EXISTS restored")
        sql("CREATE DATABASE restored")
        into = ("pg_restore", "--username=frs", "--dbname=restored", "--no-owner", "--exit-on-error")
        send(source / DUMP, "exec", "-T", "postgres", *into)
        if not in_object_storage():
            size = (source / ARTIFACTS).stat().st_size
            send(source / ARTIFACTS, *IN_DATA, "restore-unpack", "--bytes", str(size))
    except BaseException:
        sql("DROP DATABASE IF EXISTS restored")
        in_object_storage() or compose(*IN_DATA, "restore-discard")
        raise
    compose("stop", "api", "worker")
    sql("DROP DATABASE IF EXISTS frs WITH (FORCE)")
    sql("ALTER DATABASE restored RENAME TO frs")
    if not in_object_storage():
        compose(*IN_DATA, "restore-replace")
    compose("up", "--detach")
    print("Restored. Jobs that ran when the backup was made go on from their last checkpoint.")


IN_DATA = ("run", "--rm", "--no-deps", "-T", "migrate", "python", "-m", "store")


def check(source: Path) -> None:
    """Raises BackupError unless it is a whole backup that fits where the artifacts are to go."""
    try:
        listed = dict(line.split()[::-1] for line in (source / SUMS).read_text().splitlines())
    except OSError:
        raise BackupError(f"{source} is no backup: it has no {SUMS}.") from None
    for name, sha256 in listed.items():
        if not (source / name).is_file() or digest(source / name) != sha256:
            raise BackupError(f"{source / name} is damaged; nothing was changed.")
    if (ARTIFACTS in listed) == in_object_storage():
        here = "in object storage" if in_object_storage() else "in a folder"
        raise BackupError(f"{source} was made with artifacts elsewhere; .env (FRS_ARTIFACTS_URL) has them {here}.")


def dump(file: Path) -> None:
    receive(file, "exec", "-T", "postgres", "pg_dump", "--username=frs", "--format=custom", "frs")


def sql(statement: str) -> None:
    client = ("psql", "--quiet", "--username=frs", "--dbname=postgres", "--set=ON_ERROR_STOP=1")
    compose("exec", "-T", "postgres", *client, f"--command={statement}")


def wait_for_postgres(seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    asked = compose_command("exec", "-T", "postgres", "pg_isready", "--quiet", "--username=frs", "--host=127.0.0.1")
    while subprocess.run(asked, cwd=ROOT, capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise BackupError("PostgreSQL does not answer; see docker compose logs postgres.")
        time.sleep(1)


def in_object_storage() -> bool:
    return environment("FRS_ARTIFACTS_URL").startswith("s3://")


def environment(name: str) -> str:
    """As the service's containers get it. Raises BackupError."""
    if not (ROOT / ".env").is_file():
        raise BackupError("There is no .env; run make env.")
    done = subprocess.run(compose_command("config"), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackupError(done.stderr.strip())
    values = [line.partition(": ")[2].strip().strip("'\"") for line in done.stdout.splitlines() if f" {name}: " in line]
    return values[0] if values else ""


def store(how: str, service: str, step: str) -> None:
    compose(how, "-T", service, "python", "-m", "store", step)


def receive(file: Path, *arguments: str) -> None:
    """What the command prints."""
    with (
        subprocess.Popen(compose_command(*arguments), cwd=ROOT, stdout=subprocess.PIPE) as process,
        file.open("wb") as out,
    ):
        assert process.stdout
        copy(process.stdout, out, file.name)
    _check(process)


def send(file: Path, *arguments: str) -> None:
    """The file, for the command to read."""
    with (
        subprocess.Popen(compose_command(*arguments), cwd=ROOT, stdin=subprocess.PIPE) as process,
        file.open("rb") as source,
    ):
        assert process.stdin
        try:
            copy(source, process.stdin, file.name)
            process.stdin.close()
        except BrokenPipeError:  # it ended, and says why
            pass
    _check(process)


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
    """Raises BackupError."""
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return ("docker", "compose")
    if shutil.which("docker-compose"):
        return ("docker-compose",)
    raise BackupError("Neither `docker compose` nor docker-compose is there.")


def digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def alone() -> Iterator[None]:
    """Raises BackupError while another backup or restore of this checkout runs."""
    with Path(__file__).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError("Another backup or restore is running.") from None
        yield


def _check(process: "subprocess.Popen[bytes]") -> None:
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)


if __name__ == "__main__":
    main()
