"""The only task: a hint that there may be a job. Lost or doubled, it does no harm; the database is the truth."""

import re

from store.queue import TRAIN
from worker.app import app, dispatcher

_JOB_ID = re.compile(r"job_[0-9a-z]{26}")


def train(job_id: object) -> None:
    if isinstance(job_id, str) and _JOB_ID.fullmatch(job_id):
        dispatcher.wake()


app.task(train, name=TRAIN)
app.finalize()
for _name in app.tasks.keys() - {TRAIN}:
    del app.tasks[_name]  # Celery's own, which call others by name
