"""Check the database and return version numbers."""

import platform

from sqlalchemy.exc import OperationalError

from api.health.schemas import Version
from frs import __version__
from store.db import schema
from store.db.database import Database
from store.errors import DatabaseNotReady


def check_database(database: Database) -> None:
    """Raise DatabaseNotReady unless the database responds and has the tables of this version."""
    try:
        schema.check(database)
    except OperationalError as error:
        raise DatabaseNotReady(
            "The database cannot be reached.", "Check that the database server is running."
        ) from error


def get_version() -> Version:
    """Return the versions of the service and of Python."""
    return Version(frs=__version__, python=platform.python_version())
