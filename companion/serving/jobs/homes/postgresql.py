"""Jobs in PostgreSQL, for workers on any number of machines.

Claimers pass over rows that somebody else is just claiming (`FOR UPDATE SKIP LOCKED`) instead of
queueing behind them, and all leases are by the server's clock, since the clocks of machines differ.

Source: https://www.postgresql.org/docs/current/functions-datetime.html#FUNCTIONS-DATETIME-CURRENT
(`clock_timestamp` moves on within a transaction, `now` does not).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row

from companion.serving.jobs.errors import JobsUnavailableError
from companion.serving.jobs.homes import statements
from companion.serving.jobs.homes.sql import Rows, SqlHome
from companion.storage import without_secrets

SERVER_CLOCK = "extract(epoch from clock_timestamp())::double precision"

_GRACE = 1.0

_SCHEMA_LOCK = 4_915_115
"""An arbitrary number: two processes that make the tables at once would clash over them."""


class Connection(psycopg.Connection[dict[str, Any]]):
    """One whose waits for the server end after `patience` seconds, and with them the connection.

    The server's own `statement_timeout` ends a slow statement; a server that hangs, or a network
    that swallows its answer, would be waited for for ever.
    """

    patience: float

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        patience = self.patience if timeout is None else timeout
        try:
            return super().wait(gen, interval, patience)
        except psycopg.errors._WaitTimeout as error:
            self.pgconn.finish()  # nobody knows what is still to come over it
            raise psycopg.OperationalError(f"no answer within {patience:g} s") from error


class PostgresqlHome(SqlHome):
    """Jobs in the database at `url`; its tables are made where they are missing.

    Every thread has a connection of its own, which is replaced when it breaks. `timeout` (seconds)
    bounds connecting and every statement. `clock` is the SQL that tells the time.

    Raises `JobsUnavailableError` where the server does not answer.
    """

    def __init__(self, url: str, *, timeout: float = 10.0, clock: str = SERVER_CLOCK) -> None:
        super().__init__(without_secrets(url), self._begun)
        self._url = url
        self._timeout = timeout
        self._clock = f"({clock})"
        self._of_thread = threading.local()
        with self._begun() as session:
            session.run(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
            for statement in statements.SCHEMA:
                session.run(statement)

    def close(self) -> None:
        """Close the connection of the calling thread; others close with their threads."""
        connection = getattr(self._of_thread, "connection", None)
        if connection is not None:
            connection.close()
            del self._of_thread.connection

    @contextmanager
    def _begun(self) -> Iterator[_PostgresqlSession]:
        try:
            connection = self._connection()
            with connection.transaction():
                yield _PostgresqlSession(connection, self._clock)
        except psycopg.Error as error:
            self.close()  # whatever state it is in, the next call makes a new one
            raise JobsUnavailableError(self.name, str(error).strip()) from error

    def _connection(self) -> Connection:
        connection: Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None or connection.broken:
            connection = Connection.connect(
                self._url,
                autocommit=True,
                connect_timeout=max(2, round(self._timeout)),
                options=f"-c statement_timeout={round(self._timeout * 1000)}",
                row_factory=dict_row,
            )
            # The server gets the chance to say by itself that a statement took too long.
            connection.patience = self._timeout + _GRACE
            self._of_thread.connection = connection
        return connection


class _PostgresqlSession:
    def __init__(self, connection: Connection, clock: str) -> None:
        self._connection = connection
        self._clock = clock

    def run(self, statement: str, /, **values: Any) -> Rows:
        cursor = self._connection.execute(self._spoken(statement), values)
        return list(cursor) if cursor.description else []

    def run_many(self, statement: str, values: Sequence[Mapping[str, Any]], /) -> None:
        if values:
            self._connection.cursor().executemany(self._spoken(statement), values)

    def _spoken(self, statement: str) -> bytes:
        said = statement.replace(":skip_locked", "FOR UPDATE SKIP LOCKED")
        said = re.sub(r"(?<!:):now\b", self._clock, said)
        return re.sub(r"(?<!:):([a-z]\w*)", r"%(\1)s", said).encode()
