"""Commits whose acknowledgement was lost.

PostgreSQL can report later whether a transaction was committed; a commit on SQLite is always acknowledged.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from sqlalchemy import exc, text
from sqlalchemy.orm import Session

from store.db.database import Database

T = TypeVar("T")


class RetryableTransaction(Generic[T]):
    """A function of a session that takes effect once, however often a retrying caller calls it.

    Without it, a batch of events whose commit succeeded without an acknowledgement would be written twice.
    """

    def __init__(self, database: Database, function: Callable[[Session], T]) -> None:
        """Take a function that leaves the commit to this class, which opens the session."""
        self._database, self._function = database, function
        self._transaction_id: str | None = None
        """The transaction whose commit was attempted last."""

    def __call__(self) -> T:
        """Call the function in a new session and commit, unless that was committed before; return its result."""
        with self._database.write() as session:
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
