"""Database connections for a service of several processes: few, alive, and within a budget.

A connection pool belongs to one process. A server counts the connections of all of them, so a size
that is right for one worker may be too much for eight: the budget is divided *before* an engine is
made (:func:`connection_budget`), and an impossible one is an error at start-up rather than "too
many clients" at peak time. More connections are not more throughput: the server's cores and disks
set that, and what exceeds them waits, which costs less in the pool than in the server.

:func:`engine_for` adds what SQLAlchemy leaves to its user:

* *pre-ping*, as a pool does not notice that the server has gone away until a query has failed;
* a wait for a connection of at most two seconds, ended by :class:`PoolExhaustedError`: SQLAlchemy's
  30 outlast every caller's patience, while each waiting request holds a thread;
* limits on connecting and on each statement, without which one slow query keeps its connection;
* a fresh pool in a forked child, since two processes that write into one socket garble both.

    engine = engine_for("postgresql://scorer@db/fraud", workers=8, max_connections=100)

    def fetch_features(engine, customer_id):
        query = text("SELECT * FROM customer_features WHERE customer_id = :customer")
        with engine.connect() as connection:  # given back at the end of the block, also on an error
            row = connection.execute(query, {"customer": customer_id}).mappings().one_or_none()
        return None if row is None else dict(row)

Score after the block: a connection that is held while the model works serves nobody.

Sources: SQLAlchemy documentation, *Connection Pooling* (disconnects, fork); PostgreSQL
documentation, `max_connections`, `superuser_reserved_connections`, `statement_timeout`; B. Schwartz
et al., *High Performance MySQL*, on concurrency and throughput.
"""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from companion.storage import open_db

LONGEST_POOL_TIMEOUT = 2.0
"""Seconds; a caller that waits longer for a connection has usually gone away itself."""


class ConnectionBudgetError(ValueError):
    """The server has too few connections for so many workers; the message does the sum."""

    def __init__(self, workers: int, max_connections: int, reserve: int) -> None:
        super().__init__(workers, max_connections, reserve)
        self.workers = workers
        self.max_connections = max_connections
        self.reserve = reserve

    def __str__(self) -> str:
        left = self.max_connections - self.reserve
        return (
            f"{self.max_connections} connections - {self.reserve} in reserve = {left}, which is "
            f"less than one for each of {self.workers} workers; raise the server's limit, run "
            f"fewer workers, or put a pooler such as PgBouncer between them"
        )


class PoolExhaustedError(PoolTimeoutError):
    """All connections of this process were in use for ``waited`` seconds; ``most`` is how many."""

    def __init__(self, waited: float, most: int) -> None:
        super().__init__(
            f"all {most} connections of this process were in use for {waited:g} s; look for "
            f"slow statements and for connections held while something else is done"
        )
        self.waited = waited
        self.most = most

    def __reduce__(self) -> Any:
        return type(self), (self.waited, self.most)


@dataclass(frozen=True)
class ConnectionBudget:
    """How many connections one worker keeps (``pool_size``) and may add at peaks."""

    pool_size: int
    max_overflow: int
    workers: int

    @property
    def per_worker(self) -> int:
        """The most connections that one worker can hold."""
        return self.pool_size + self.max_overflow

    @property
    def total(self) -> int:
        """The most connections that all workers can hold together."""
        return self.workers * self.per_worker


def connection_budget(
    workers: int,
    max_connections: int,
    reserve: int = 10,
    *,
    pool_size: int = 10,
    max_overflow: int = 5,
) -> ConnectionBudget:
    """Divide a server's connections: ``workers`` × (kept + overflow) ≤ limit - ``reserve``.

    Args:
        workers: processes, all machines together. During a rolling deployment old and new ones run
            side by side: count both.
        max_connections: the server's own limit (PostgreSQL: ``SHOW max_connections``).
        reserve: left for migrations, monitoring, people, and the server's own superuser slots.
        pool_size: how many one worker would like to keep; cut down to its share.
        max_overflow: how many it would like to add at peaks. Each is opened anew, so they are cut
            first.

    Raises:
        ConnectionBudgetError: there is not even one connection for each worker.
        ValueError: a count that makes no sense; the message names it.
    """
    _require(workers >= 1, "workers is at least 1", workers)
    _require(max_connections >= 1, "max_connections is at least 1", max_connections)
    _require(reserve >= 0, "reserve is at least 0", reserve)
    _require(pool_size >= 1, "pool_size is at least 1", pool_size)
    _require(max_overflow >= 0, "max_overflow is at least 0", max_overflow)
    share = (max_connections - reserve) // workers
    if share < 1:
        raise ConnectionBudgetError(workers, max_connections, reserve)
    kept = min(pool_size, share)
    return ConnectionBudget(kept, min(max_overflow, share - kept), workers)


def engine_for(
    url: str | URL,
    *,
    workers: int,
    max_connections: int,
    reserve: int = 10,
    pool_size: int = 10,
    max_overflow: int = 5,
    pool_timeout: float = 1.0,
    connect_timeout: int = 2,
    statement_timeout: float = 2.0,
) -> Engine:
    """An engine whose pool keeps to the budget, for PostgreSQL or one SQLite file.

    Nothing is connected yet. Dispose of the engine when the service stops.

    Args:
        url: ``postgresql://…`` (by psycopg 3) or ``sqlite:///FILE``.
        workers, max_connections, reserve, pool_size, max_overflow: see :func:`connection_budget`.
            A SQLite file has no limit of connections; give the number of open files you allow.
        pool_timeout: seconds to wait for a connection, at most 2.
        connect_timeout: whole seconds for opening one on PostgreSQL; psycopg takes 2 at least.
        statement_timeout: seconds for one statement. PostgreSQL cancels it; on SQLite it is the
            wait for somebody else's write lock.

    Raises:
        ConnectionBudgetError: see :func:`connection_budget`.
        ValueError: another database, SQLite in memory, or a setting that makes no sense.
        PoolExhaustedError: later, from ``connect()`` and ``begin()``.
    """
    _require(
        0 < pool_timeout <= LONGEST_POOL_TIMEOUT,
        f"pool_timeout is above 0 and at most {LONGEST_POOL_TIMEOUT:g} s",
        pool_timeout,
    )
    _require(
        0.001 <= statement_timeout < float("inf"),
        "statement_timeout is at least a millisecond, and finite",
        statement_timeout,
    )
    _require(connect_timeout >= 2, "connect_timeout is at least 2 s, as in libpq", connect_timeout)
    budget = connection_budget(
        workers, max_connections, reserve, pool_size=pool_size, max_overflow=max_overflow
    )
    address = make_url(url)
    pooling: dict[str, Any] = {
        "poolclass": _Pool,
        "pool_size": budget.pool_size,
        "max_overflow": budget.max_overflow,
        "pool_timeout": pool_timeout,
        "pool_pre_ping": True,
        "pool_use_lifo": True,  # the same few stay warm
    }
    if address.drivername in ("postgresql", "postgresql+psycopg"):
        engine = create_engine(
            address.set(drivername="postgresql+psycopg"),
            connect_args=_postgresql(address, connect_timeout, statement_timeout),
            **pooling,
        )
    elif address.drivername in ("sqlite", "sqlite+pysqlite"):
        _require(
            address.database not in (None, "", ":memory:"),
            "an SQLite database in memory belongs to one connection; give a file",
            str(address),
        )
        engine = create_engine(
            address, connect_args={"timeout": statement_timeout, "isolation_level": None}, **pooling
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        raise ValueError(f"postgresql:// or sqlite:///FILE; got {address.drivername!r}")
    _made.add(engine)
    return engine


class _Pool(QueuePool):
    """A queue pool that says by name that it is exhausted."""

    def _do_get(self) -> ConnectionPoolEntry:
        try:
            return super()._do_get()
        except PoolTimeoutError as error:
            if isinstance(error, PoolExhaustedError):
                raise
            raise PoolExhaustedError(self._timeout, self.size() + self._max_overflow) from error


def _postgresql(address: URL, connect_timeout: int, statement_timeout: float) -> dict[str, Any]:
    """Limits of one connection; what the URL itself asks for in ``options`` stays."""
    asked = address.query.get("options", ())
    options = [asked] if isinstance(asked, str) else [*asked]
    options.append(f"-c statement_timeout={round(statement_timeout * 1000)}")
    return {"connect_timeout": connect_timeout, "options": " ".join(options)}


def _prepare_sqlite(connection: Any, record: ConnectionPoolEntry) -> None:
    """As in :mod:`companion.storage.sqlite`: readers and the writer side by side, nothing lost."""
    [mode] = connection.execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        [(_, _, path)] = connection.execute("PRAGMA database_list").fetchall()
        open_db(path).close()  # it waits its turn, which the bare pragma does not
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Any) -> None:
    # The driver's own way begins at the first write, so that a read before it stands outside and
    # somebody else's update is lost silently. This way SQLite refuses the write instead.
    connection.exec_driver_sql("BEGIN")


def _require(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{rule}; got {value!r}")


_made: weakref.WeakSet[Engine] = weakref.WeakSet()


def _start_afresh_in_child() -> None:
    for engine in list(_made):
        engine.dispose(close=False)  # the parent goes on using those sockets


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork either
    os.register_at_fork(after_in_child=_start_afresh_in_child)
