"""A database of which one call fails, chosen by its number, before it took effect or after."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from sqlalchemy import event

from store.db.database import Database

When = Literal["before", "after"]
"""Whether the call has taken effect when it fails: after a commit, nobody knows that it was one."""
CALLS = ("do_execute", "do_executemany", "do_execute_no_params", "do_commit")


class Faults:
    """Counts the calls of one database and makes one of them fail."""

    def __init__(self, database: Database, when: When) -> None:
        self._error = database.engine.dialect.dbapi.OperationalError
        self._when = when
        self._lock = threading.Lock()
        self._fail_at = 0
        self._calls = 0
        self.fired = ""
        """Name of the call that failed."""
        for name in CALLS:
            setattr(database.engine.dialect, name, self._wrapped(name, getattr(database.engine.dialect, name)))

    @contextmanager
    def at(self, number: int) -> Iterator[None]:
        """The call of that number fails, counted from 1, if there are as many."""
        self._fail_at, self._calls, self.fired = number, 0, ""
        yield
        self._fail_at = 0

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            fails = self._fails()
            if fails and self._when == "before":
                self._fail(name)
            result = call(*arguments, **named)
            if fails:
                self._fail(name)
            return result

        return wrapped

    def _fails(self) -> bool:
        with self._lock:
            self._calls += 1
            return self._calls == self._fail_at

    def _fail(self, name: str) -> None:
        self.fired = name
        raise self._error("server closed the connection unexpectedly")


def hasty(database: Database) -> Database:
    """For tests that cut no power: SQLite that does not wait for the disk."""
    if database.engine.dialect.name == "sqlite":
        event.listen(database.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
    return database
