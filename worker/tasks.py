"""The only Celery task: a wake-up that announces a job. The database has the jobs, so it may be lost or repeated."""

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
    """Wake the dispatcher if `job_id` has the form of a job's id; ignore it otherwise."""
    if isinstance(job_id, str) and _JOB_ID.fullmatch(job_id):
        dispatcher.wake()


def consume_wakeups(_: Any, __: Any, consumer: Any) -> Callable[..., None]:
    """Return the handler of the task's messages: acknowledge, then read the job's id from the JSON body.

    It replaces Celery's default strategy, which decodes more than a wake-up has and stops the worker on a message that
    it cannot decode.
    """

    def handle(message: Any, _: Any, ack: Callable[..., None], *__: Any, **___: Any) -> None:
        ack(_log, consumer.connection_errors)
        try:
            train(json.loads(message.body)[0][0])
        except Exception as error:  # a forged message may make the decoder raise anything
            _log.warning("A message that is no wake-up was ignored: %s", type(error).__name__)

    return handle


app.task(train, name=TRAIN, Strategy="worker.tasks:consume_wakeups")
app.finalize()
for _name in app.tasks.keys() - {TRAIN}:
    del app.tasks[_name]  # Celery's built-in tasks, which can call other tasks by name
