import platform
from importlib.metadata import version as version_of

from sqlalchemy.exc import OperationalError

from api.health.schemas import Version
from store.db import schema
from store.db.database import Database
from store.errors import DatabaseNotReady


def check(database: Database) -> None:
    """Raises DatabaseNotReady unless the database answers and has the tables this code needs."""
    try:
        schema.check(database)
    except OperationalError as error:
        raise DatabaseNotReady("The database cannot be reached.", "Look whether it runs.") from error


def version() -> Version:
    return Version(frs=version_of("frs"), python=platform.python_version())
