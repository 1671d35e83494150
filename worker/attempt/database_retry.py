"""Transactions of an attempt, repeated while the database is away."""

import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import structlog
from sqlalchemy import exc
from sqlalchemy.orm import Session

from store.db.commits import RetryableTransaction
from store.db.database import Database
from store.errors import LeaseLost

TRANSIENT_ERRORS = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError)
"""Errors after which a transaction is retried."""
T = TypeVar("T")
_log = structlog.get_logger()


class RetryingDatabase:
    """Opens and commits transactions, and repeats them after transient errors until `is_abandoned`."""

    def __init__(self, database: Database, is_abandoned: Callable[[], bool]) -> None:
        """`is_abandoned` returns whether to give up waiting for a database that does not answer."""
        self._database, self._is_abandoned = database, is_abandoned

    def read(self, function: Callable[[Session], T]) -> T:
        """Return `function(session)`. Raises LeaseLost if the database is away for too long."""

        def read() -> T:
            with self._database.read() as session:
                return function(session)

        return self._retry(read)

    def write(self, function: Callable[[Session], T]) -> T:
        """Return `function(session)`, committed once. Raises LeaseLost if the database is away for too long."""
        return self._retry(RetryableTransaction[T](self._database, function))

    def _retry(self, transaction: Callable[[], T]) -> T:
        delays = backoff_delays()
        while True:
            try:
                return transaction()
            except TRANSIENT_ERRORS as error:
                if self._is_abandoned():
                    raise LeaseLost("The database was unavailable for longer than this attempt may run.") from error
                _log.warning("The database is unavailable; the transaction is retried.", error=type(error).__name__)
                time.sleep(next(delays))


def backoff_delays(first: float = 0.1, longest: float = 5.0) -> Iterator[float]:
    """Yield delays in seconds that double from `first` to `longest`.

    Each is multiplied by a random factor from 0.5 to 1, so that clients do not retry all at once.
    """
    while True:
        yield first * random.uniform(0.5, 1)
        first = min(2 * first, longest)
