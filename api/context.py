"""Objects that endpoints share; they are created once, when the application starts."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.http.shared_limits import SharedLimits
from api.metric_cache import MetricCurveCache
from api.predictor_pool import PredictorPool
from api.streaming.streams import Streams
from store.artifacts.storage import Artifacts, open_artifacts
from store.db import api_keys, schema
from store.db.database import Database, open_database
from store.errors import DatabaseNotReady
from store.scheduling.wakeups import Wakeups, celery_app, wakeup_sender
from store.settings import Settings


@dataclass(frozen=True)
class Context:
    """Settings, database, artifact storage and the in-memory state of one API process."""

    settings: Settings
    database: Database
    artifacts: Artifacts
    wakeups: Wakeups
    shared_limits: SharedLimits
    streams: Streams
    metric_cache: MetricCurveCache
    predictors: PredictorPool

    def close(self) -> None:
        """Close the wake-up sender, the database connections and the processes that predict."""
        self.predictors.close()
        self.wakeups.close()
        self.database.engine.dispose()


def open_context(settings: Settings) -> Context:
    """Return the context of an API process.

    Raises DatabaseNotReady if the database cannot be reached, or if `python -m store init` has not been run.
    """
    database = open_database(settings.database_url)
    with schema.connecting():
        schema.check(database)
        with database.read() as session:
            if not api_keys.any_exist(session):
                raise DatabaseNotReady("The database has no API key.")
    wakeups = Wakeups(wakeup_sender(celery_app(settings)))
    shared_limits = SharedLimits(settings.redis_url)
    streams = Streams(database, shared_limits, settings.max_streams_per_key)
    artifacts = open_artifacts(settings)
    own = (streams, MetricCurveCache(), PredictorPool(artifacts))
    return Context(settings, database, artifacts, wakeups, shared_limits, *own)


async def _get_context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


ContextDep = Annotated[Context, Depends(_get_context)]
"""Endpoint parameter: the context of the application."""
