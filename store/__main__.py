"""`python -m store init`: create folders, tables and the first API key. Idempotent, in any number of processes.

`python -m store settings` prints every setting of this environment, passwords masked, and whether it was set.

The other commands are steps of `docker/backup.py` on the artifacts folder: `backup-begin`, `backup-pack` (writes a tar
to standard output), `backup-end`, `restore-unpack` (reads it from standard input), `restore-replace` and
`restore-discard`; and on the restored database, `restore-release`.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from frs.errors import FrsError
from store.artifacts import backup
from store.initialise import initialise
from store.restored import release_jobs
from store.settings import Settings
from store.settings_report import read_settings, report, unknown_variables

STEPS: dict[str, Callable[[Path, int], None]] = {
    "backup-begin": lambda root, _: backup.begin(root),
    "backup-pack": lambda root, _: backup.pack(root, sys.stdout.buffer),
    "backup-end": lambda root, _: backup.end(root),
    "restore-unpack": lambda root, size: backup.unpack(root, sys.stdin.buffer, size),
    "restore-replace": lambda root, _: backup.replace_artifacts(root),
    "restore-discard": lambda root, _: backup.discard(root),
}
"""The backup and restore commands; each gets the artifacts folder and `--bytes`."""


def main() -> None:
    """Run the command given on the command line."""
    parser = argparse.ArgumentParser(prog="python -m store", description=__doc__)
    parser.add_argument("command", choices=["init", "settings", "restore-release", *STEPS])
    parser.add_argument("--bytes", type=int, default=0, help="size of the unpacked files, for restore-unpack")
    arguments = parser.parse_args()
    settings = read_settings()
    if arguments.command == "settings":
        print(report(settings))
        return
    try:
        _run(arguments.command, arguments.bytes, settings)
    except FrsError as error:
        raise SystemExit(f"{error.code}: {error}") from None


def _run(command: str, size: int, settings: Settings) -> None:
    """Run a command other than `settings`. Raises FrsError."""
    if command == "init":
        for message in unknown_variables():
            print(message, file=sys.stderr)
        if settings.metrics_key_file and not settings.metrics_key_file.exists():
            print(f"no metrics key in {settings.metrics_key_file}: run `make env`", file=sys.stderr)
        initialise(settings)
        print(f"ready: data in {settings.data}, API key in {settings.api_key_file}")
        return
    if command == "restore-release":
        print(f"{len(release_jobs(settings))} jobs ran when the backup was made; they are queued again")
        return
    if settings.artifacts_root is None:
        raise SystemExit("The artifacts are in object storage: back them up with the tools of that storage.")
    STEPS[command](settings.artifacts_root, size)


if __name__ == "__main__":
    main()
