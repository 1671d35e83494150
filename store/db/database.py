"""Connections: SQLite (WAL) for one machine, PostgreSQL for many. Same tables, same code above this file."""

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
"""Small, and quick to say that there is no connection left."""
TURN_SECONDS = 20.0
SQLITE_PRAGMAS = (f"busy_timeout={TURN_SECONDS * 1000:.0f}", "journal_mode=WAL", "synchronous=FULL")
POSTGRESQL_OPTIONS = {
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
}


class now(FunctionElement[float]):  # noqa: N801  (reads as the SQL function it is)
    """Seconds since 1970 UTC on the database's clock: the one clock that leases and all times go by."""

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
    """`with database.write() as session: ...; session.commit()`. What was not committed is rolled back."""

    engine: Engine
    read: sessionmaker[Session]
    """For requests that only look: on SQLite they never wait for a writer."""
    write: sessionmaker[Session]
    """On SQLite the transaction takes the write lock as it begins: one that read first could not get it later."""


def open_database(url: str, *, clock: Callable[[], float] = time.time, foreign_keys: bool = True) -> Database:
    """`clock` and `foreign_keys` are SQLite's, which has no server and so goes by the clock of this machine."""
    engine = _sqlite_engine(url, clock, foreign_keys) if url.startswith("sqlite") else _postgresql_engine(url)
    sessions = partial(sessionmaker, expire_on_commit=False)
    return Database(engine, read=sessions(engine), write=sessions(engine.execution_options(begin="IMMEDIATE")))


def time_of(session: Session) -> float:
    """What `now` is, as a number."""
    return session.scalars(select(now())).one()


def insert(session: Session, table: type[DeclarativeBase] | FromClause) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT."""
    return (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert(table)


def _sqlite_engine(url: str, clock: Callable[[], float], foreign_keys: bool) -> Engine:
    def set_up(connection: Any, _: Any) -> None:
        for pragma in (*SQLITE_PRAGMAS, f"foreign_keys={int(foreign_keys)}"):
            connection.execute(f"PRAGMA {pragma}")
        connection.create_function("frs_now", 0, clock)

    engine = create_engine(url, json_serializer=_strict_json, connect_args={"isolation_level": None}, **POOL)
    turn = _Turn()
    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", turn.begin)  # isolation_level=None keeps the driver from choosing when
    event.listen(engine, "checkin", _leave_no_transaction)
    event.listen(engine, "checkin", turn.end)  # the last: others begin now
    return engine


class _Turn:
    """One writer of this process at a time asks SQLite for its lock: it makes those who wait sleep, ever longer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def begin(self, connection: Connection) -> None:
        how = connection.get_execution_options().get("begin", "DEFERRED")
        if how == "IMMEDIATE":
            connection.info["has_turn"] = self._lock.acquire(timeout=TURN_SECONDS)
        connection.exec_driver_sql(f"BEGIN {how}")

    def end(self, _: Any, record: ConnectionPoolEntry) -> None:
        """Called as the connection goes back to the pool, after commit, rollback or failure."""
        if record.info.pop("has_turn", False):
            self._lock.release()


def _postgresql_engine(url: str) -> Engine:
    options = " ".join(f"-c {name}={value}" for name, value in POSTGRESQL_OPTIONS.items())
    engine = create_engine(
        url,
        json_serializer=_strict_json,
        connect_args={"connect_timeout": 5, "options": options},
        pool_pre_ping=True,
        **POOL,
    )
    event.listen(engine, "checkin", _leave_no_transaction)
    return engine


def _leave_no_transaction(connection: Any, record: ConnectionPoolEntry) -> None:
    """After a commit that failed SQLAlchemy rolls nothing back, and a full disk may have left all of it open."""
    if connection is None:
        return
    try:
        connection.rollback()
    except Exception as error:  # whatever the driver says of a connection that is gone
        record.invalidate(error)


_strict_json = partial(json.dumps, allow_nan=False, ensure_ascii=True)
"""NaN is no JSON: whoever tries to store it hears of it."""
