"""Database connections: SQLite (WAL) for one machine, PostgreSQL for several.

Everything above this module is the same for both.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, Double, Engine, FromClause, create_engine, event, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement

POOL = {"pool_size": 5, "max_overflow": 10, "pool_timeout": 2.0}
"""Connection pool: small, and with a short timeout (seconds) when no connection is free."""
PRIVATE = {"hide_parameters": True}
"""Errors do not contain the values of a statement, such as a webhook's secret: the log has errors of the database."""
WRITER_TIMEOUT_SECONDS = 20.0
"""How long a writer waits for the write lock of SQLite."""
SQLITE_PRAGMAS = (f"busy_timeout={WRITER_TIMEOUT_SECONDS * 1000:.0f}", "journal_mode=WAL", "synchronous=FULL")
"""Set on each new SQLite connection; with WAL and FULL, a committed transaction survives a power cut."""
POSTGRESQL_OPTIONS = {
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
}
"""Set on each new PostgreSQL connection; the server then ends hanging statements and transactions."""


class now(FunctionElement[float]):  # noqa: N801  (reads as the SQL function it is)
    """SQL function: seconds since 1970 UTC on the database's clock, the only clock of leases and stored times."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_of_sqlite(element: now, compiler: SQLCompiler, **options: Any) -> str:
    return "frs_now()"


@compiles(now, "postgresql")
def _now_of_postgresql(element: now, compiler: SQLCompiler, **options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


@dataclass(frozen=True)
class Database:
    """An engine and its session factories.

    Use `with database.write() as session: ...; session.commit()`; uncommitted changes are rolled back. The function
    that opens a session commits it; a function that takes a session never does.
    """

    engine: Engine
    read: sessionmaker[Session]
    """Sessions that only read; on SQLite they never wait for a writer."""
    write: sessionmaker[Session]
    """Sessions that write. On SQLite the transaction takes the write lock at its start: after a read it could no longer
    get it."""


def open_database(url: str, *, clock: Callable[[], float] = time.time, foreign_keys: bool = True) -> Database:
    """Open a database, without connecting yet.

    `clock` (seconds since 1970 UTC) and `foreign_keys` (whether to enforce them) apply to SQLite only, which has no
    server and therefore uses the clock of this machine.
    """
    engine = _sqlite_engine(url, clock, foreign_keys) if url.startswith("sqlite") else _postgresql_engine(url)
    sessions = partial(sessionmaker, expire_on_commit=False)
    return Database(engine, read=sessions(engine), write=sessions(engine.execution_options(begin="IMMEDIATE")))


def time_of(session: Session) -> float:
    """Return the database's time in seconds since 1970 UTC."""
    return session.scalars(select(now())).one()


def insert(session: Session, table: type[DeclarativeBase] | FromClause) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT of the session's dialect, which supports ON CONFLICT."""
    return (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert(table)


def _sqlite_engine(url: str, clock: Callable[[], float], foreign_keys: bool) -> Engine:
    def configure(connection: Any, _: Any) -> None:
        for pragma in (*SQLITE_PRAGMAS, f"foreign_keys={int(foreign_keys)}"):
            connection.execute(f"PRAGMA {pragma}")
        connection.create_function("frs_now", 0, clock)

    engine = create_engine(url, json_serializer=_strict_json, connect_args={"isolation_level": None}, **POOL, **PRIVATE)
    writer_lock = _WriterLock()
    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", writer_lock.begin)  # isolation_level=None: the driver itself never begins
    event.listen(engine, "checkin", _roll_back)
    event.listen(engine, "checkin", writer_lock.end)  # registered last: another writer begins after it
    return engine


class _WriterLock:
    """Let one writer of this process at a time request SQLite's write lock.

    Waiting within SQLite would sleep in ever longer intervals.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def begin(self, connection: Connection) -> None:
        """Begin the transaction, after acquiring the lock if it writes."""
        mode = connection.get_execution_options().get("begin", "DEFERRED")
        if mode == "IMMEDIATE":
            connection.info["holds_writer_lock"] = self._lock.acquire(timeout=WRITER_TIMEOUT_SECONDS)
        connection.exec_driver_sql(f"BEGIN {mode}")

    def end(self, _: Any, record: ConnectionPoolEntry) -> None:
        """Release the lock when the connection returns to the pool, after commit, rollback or failure."""
        if record.info.pop("holds_writer_lock", False):
            self._lock.release()


def _postgresql_engine(url: str) -> Engine:
    options = " ".join(f"-c {name}={value}" for name, value in POSTGRESQL_OPTIONS.items())
    engine = create_engine(
        url,
        json_serializer=_strict_json,
        connect_args={"connect_timeout": 5, "options": options},
        pool_pre_ping=True,
        **POOL,
        **PRIVATE,
    )
    event.listen(engine, "checkin", _roll_back)
    return engine


def _roll_back(connection: Any, record: ConnectionPoolEntry) -> None:
    """Roll back a transaction left open by a failed commit, for example on a full disk; SQLAlchemy does not."""
    if connection is None:
        return
    try:
        connection.rollback()
    except Exception as error:  # any driver error: the connection is lost
        record.invalidate(error)


_strict_json = partial(json.dumps, allow_nan=False, ensure_ascii=True)
"""Serialise to standard JSON; NaN raises ValueError."""
