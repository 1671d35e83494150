"""Update of a restored database: its running jobs and registered workers are those of the time of the backup."""

from sqlalchemy import delete

from store.db.database import open_database
from store.db.tables import Worker
from store.initialise import initialise
from store.jobs import lifecycle
from store.settings import Settings


def release_jobs(settings: Settings) -> list[str]:
    """Migrate the restored database, requeue its running jobs and deregister its workers; return the ids of the jobs.

    Call it before any worker starts.
    """
    initialise(settings)
    database = open_database(settings.database_url)
    with database.write() as session:
        released = lifecycle.release_running(session, "a backup was restored.")
        session.execute(delete(Worker))
        session.commit()
    database.engine.dispose()
    return released
