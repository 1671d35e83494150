"""`python -m worker`: run jobs until SIGTERM, then return running jobs to the queue."""

import logging

from frs.isolation.process import die_with_parent, hide_memory
from store.initialise import make_folders
from store.settings_report import unknown_variables
from worker import logs
from worker.app import app, settings


def main() -> None:
    """Run the Celery worker in this process. Raise SystemExit with its exit code when it ends."""
    die_with_parent()
    hide_memory()
    make_folders(settings)
    logs.configure()
    for message in unknown_variables():
        logging.getLogger("worker").warning(message)
    worker = app.Worker(
        pool="threads",
        concurrency=1,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    raise SystemExit(worker.exitcode)


if __name__ == "__main__":
    main()
