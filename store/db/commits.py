"""Commits whose acknowledgement was lost.

PostgreSQL can report later whether a transaction was committed; a commit on SQLite is always acknowledged.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from sqlalchemy import exc, text
from sqlalchemy.orm import Session

T = TypeVar("T")


class RetryableTransaction(Generic[T]):
    """A function and its commit that take effect once, however often a retrying caller calls them.

    Without it, a batch of events whose commit succeeded without an acknowledgement would be written twice.
    """

    def __init__(self, function: Callable[[Session], T]) -> None:
        self._function = function
        self._transaction_id: str | None = None
        """The transaction whose commit was attempted last."""

    def __call__(self, session: Session) -> T:
        """Call the function and commit, unless that was committed before; return the function's result."""
        if self._transaction_id is None or not _was_committed(session, self._transaction_id):
            self._result = self._function(session)
            self._transaction_id = _current_transaction_id(session)
            session.commit()
        return self._result


def _current_transaction_id(session: Session) -> str | None:
    if session.get_bind().dialect.name != "postgresql":
        return None
    return session.execute(text("SELECT CAST(pg_current_xact_id() AS text)")).scalar_one()


def _was_committed(session: Session, transaction_id: str) -> bool:
    """Return whether the transaction was committed.

    Raises TimeoutError while it is in progress: its server process may still be running.
    """
    query = text("SELECT pg_xact_status(CAST(CAST(:number AS text) AS xid8))")
    status = session.execute(query, {"number": transaction_id}).scalar_one()
    if status == "in progress":
        raise exc.TimeoutError("An earlier commit is still in progress.")
    return status == "committed"
