"""Which failures of the database pass by themselves, and how long to wait for that."""

import random
from collections.abc import Iterator

from sqlalchemy import exc

TRANSIENT_ERRORS = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError)


def backoff_delays(first: float = 0.1, longest: float = 5.0) -> Iterator[float]:
    """Seconds, doubling, each at random between half and whole, so that many waiters do not return at once."""
    while True:
        yield first * random.uniform(0.5, 1)
        first = min(2 * first, longest)
