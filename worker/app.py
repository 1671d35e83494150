"""The Celery application of a worker. Its dispatcher starts before the connection to the broker and works without."""

from typing import Any

from celery import signals

from store.db.database import open_database
from store.scheduling.wakeups import celery_app
from store.settings import Settings
from worker import logs
from worker.dispatch.dispatcher import Dispatcher

settings = Settings()
app = celery_app(settings)
app.conf.imports = ["worker.tasks"]
app.conf.worker_enable_remote_control = False  # a broker carries wake-ups, no commands
app.conf.worker_redirect_stdouts = False
dispatcher = Dispatcher(settings, open_database(settings.database_url))


def _configure_logs(**_: Any) -> None:
    logs.configure()


def _start(**_: Any) -> None:
    dispatcher.start()


def _stop(**_: Any) -> None:
    """Set the stop flag only: Celery calls this from a signal handler, which must return at once."""
    dispatcher.stop()


def _join(**_: Any) -> None:
    dispatcher.stop()
    dispatcher.join()


signals.setup_logging.connect(_configure_logs)
signals.worker_init.connect(_start)
signals.worker_shutting_down.connect(_stop)
signals.worker_shutdown.connect(_join)
