"""The only task: a hint that there may be a job. Lost or doubled, it does no harm; the database is the truth."""

import json
import logging
import re
from collections.abc import Callable
from typing import Any

from store.scheduling.wakeups import TRAIN
from worker.app import app, dispatcher

_JOB_ID = re.compile(r"job_[0-9a-z]{26}")
_log = logging.getLogger(__name__)


def train(job_id: object) -> None:
    if isinstance(job_id, str) and _JOB_ID.fullmatch(job_id):
        dispatcher.wake()


def consume_wakeups(_: Any, __: Any, consumer: Any) -> Callable[..., None]:
    """How messages are taken: Celery's own way unpacks more than a hint has, and ends the worker over what it cannot."""

    def take(message: Any, _: Any, ack: Callable[..., None], *__: Any, **___: Any) -> None:
        ack(_log, consumer.connection_errors)
        try:
            train(json.loads(message.body)[0][0])
        except Exception as error:  # whatever a forged one makes the reader raise
            _log.warning("no hint: %s", type(error).__name__)

    return take


app.task(train, name=TRAIN, Strategy="worker.tasks:consume_wakeups")
app.finalize()
for _name in app.tasks.keys() - {TRAIN}:
    del app.tasks[_name]  # Celery's own, which call others by name
