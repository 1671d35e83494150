"""Transient failures of the database, and the delays of retries."""

import random
from collections.abc import Iterator

from sqlalchemy import exc

TRANSIENT_ERRORS = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError)
"""Errors after which a transaction is retried."""


def backoff_delays(first: float = 0.1, longest: float = 5.0) -> Iterator[float]:
    """Yield delays in seconds that double from `first` to `longest`.

    Each is multiplied by a random factor from 0.5 to 1, so that clients do not retry all at once.
    """
    while True:
        yield first * random.uniform(0.5, 1)
        first = min(2 * first, longest)
