"""Commits whose answer never came. PostgreSQL can be asked later what became of a transaction; SQLite's answer always comes."""

from collections.abc import Callable
from typing import Generic, TypeVar

from sqlalchemy import exc, text
from sqlalchemy.orm import Session

T = TypeVar("T")


class RetryableTransaction(Generic[T]):
    """A function and its commit, made once however often it is called, for callers that try again.

    Without this a batch of events whose commit was made, but not acknowledged, would be written a second time.
    """

    def __init__(self, function: Callable[[Session], T]) -> None:
        self._function = function
        self._number: str | None = None
        """Of the transaction whose commit was asked for last."""

    def __call__(self, session: Session) -> T:
        if self._number is None or not _was_committed(session, self._number):
            self._result = self._function(session)
            self._number = _number_of(session)
            session.commit()
        return self._result


def _number_of(session: Session) -> str | None:
    if session.get_bind().dialect.name != "postgresql":
        return None
    return session.execute(text("SELECT CAST(pg_current_xact_id() AS text)")).scalar_one()


def _was_committed(session: Session, number: str) -> bool:
    """Raises TimeoutError while that is not settled: its backend may still be at work."""
    asked = text("SELECT pg_xact_status(CAST(CAST(:number AS text) AS xid8))")
    status = session.execute(asked, {"number": number}).scalar_one()
    if status == "in progress":
        raise exc.TimeoutError("An earlier commit is still under way.")
    return status == "committed"
