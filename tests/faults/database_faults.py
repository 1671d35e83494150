"""Fault injection into a database: the call with a given number fails, before or after it takes effect."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from sqlalchemy import event

from store.db.database import Database

When = Literal["before", "after"]
"""Whether the call fails before or after it takes effect. A commit that fails afterwards is made, and its caller sees
an error."""
CALLS = ("do_execute", "do_executemany", "do_execute_no_params", "do_commit")


class DatabaseFaults:
    """Count the calls of one database and make one of them fail."""

    def __init__(self, database: Database, when: When) -> None:
        """Wrap the calls of the database's dialect."""
        self._error = database.engine.dialect.dbapi.OperationalError
        self._when = when
        self._lock = threading.Lock()
        self._fail_at = 0
        self._calls = 0
        self.failed_call = ""
        """Name of the call that failed; "" if none did."""
        for name in CALLS:
            setattr(database.engine.dialect, name, self._wrap(name, getattr(database.engine.dialect, name)))

    @contextmanager
    def fail_call(self, number: int) -> Iterator[None]:
        """Make the call with this number fail, counted from 1; with fewer calls, none fails."""
        self._fail_at, self._calls, self.failed_call = number, 0, ""
        yield
        self._fail_at = 0

    def _wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            fails = self._count_call()
            if fails and self._when == "before":
                self._fail(name)
            result = call(*arguments, **keywords)
            if fails:
                self._fail(name)
            return result

        return wrapped

    def _count_call(self) -> bool:
        """Count one call; return whether it has to fail."""
        with self._lock:
            self._calls += 1
            return self._calls == self._fail_at

    def _fail(self, name: str) -> None:
        self.failed_call = name
        raise self._error("server closed the connection unexpectedly")


def without_fsync(database: Database) -> Database:
    """Turn off SQLite's fsync, for tests that simulate no power cut; return the database."""
    if database.engine.dialect.name == "sqlite":
        event.listen(database.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    return database
