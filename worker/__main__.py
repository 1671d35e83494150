"""`python -m worker`: run jobs until SIGTERM, then return running jobs to the queue; `--once` runs one and ends."""

import argparse
import logging
from collections.abc import Sequence

from sqlalchemy.exc import OperationalError

from frs.isolation.process import die_with_parent, hide_memory
from store.db import schema
from store.db.database import open_database
from store.errors import DatabaseNotReady
from store.initialise import make_folders
from store.settings import Settings
from store.settings_report import read_settings, unknown_variables
from worker import logs
from worker.dispatch.dispatcher import Once
from worker.once import ExitCode, run_once
from worker.process.trainer import COMMAND

_EXIT_CODES = "\n".join(f"  {code.value}  {code.name.lower().replace('_', ' ')}" for code in ExitCode)


def main(arguments: Sequence[str] | None = None, command: Sequence[str] = COMMAND) -> None:
    """Run the worker in this process. Raise SystemExit with its exit code when it ends."""
    once = parse(arguments)
    die_with_parent()
    hide_memory()
    settings = read_settings()
    make_folders(settings)
    logs.configure()
    for message in unknown_variables():
        logging.getLogger("worker").warning(message)
    check_tables(settings)
    if once is not None:
        raise SystemExit(run_once(settings, open_database(settings.database_url), once, command))
    raise SystemExit(_run_celery(command))


def parse(arguments: Sequence[str] | None = None) -> Once | None:
    """Return what a worker with `--once` may claim, or None without `--once`. Raises SystemExit."""
    parser = argparse.ArgumentParser(
        prog="python -m worker",
        description=__doc__,
        epilog=f"exit codes with --once:\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--once", action="store_true", help="run one job or worker request, without a broker, and end")
    parser.add_argument("--job", metavar="ID", help="run this job only, whatever precedes it in the queue")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait for something to run")
    parser.add_argument("--min-gpus", type=int, default=0, metavar="N", help="run nothing that takes fewer GPUs")
    parser.add_argument(
        "--nodes",
        type=int,
        default=1,
        metavar="N",
        help="run a job of so many hosts; `python -m frs join` runs on others",
    )
    options = parser.parse_args(arguments)
    if not options.once:
        if options.job or options.wait or options.min_gpus or options.nodes != 1:
            parser.error("--job, --wait, --min-gpus and --nodes need --once")
        return None
    return Once(options.job, options.wait, options.min_gpus, options.nodes)


def check_tables(settings: Settings) -> None:
    """Raise SystemExit with the next step if the database lacks tables of this version.

    If the database does not answer, the dispatcher tries again.
    """
    database = open_database(settings.database_url)
    try:
        schema.check(database)
    except DatabaseNotReady as error:
        raise SystemExit(f"{error.code}: {error}") from None
    except OperationalError as error:
        logging.getLogger("worker").warning("The database does not answer: %s", error.orig)
    finally:
        database.engine.dispose()


def _run_celery(command: Sequence[str]) -> int:
    from worker.app import app, dispatcher

    dispatcher.command = command
    worker = app.Worker(
        pool="threads",
        concurrency=1,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    main()
