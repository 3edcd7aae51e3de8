"""Jobs in one SQLite file, for all processes of one machine, without a server.

Every transaction takes the write lock first and is synced to the disk before it counts
(`companion.storage`), so a claim is exclusive and a reply after a submit is a promise. Leases are
by the wall clock, the only one that all processes of a machine share over a restart; where it is
set forward a lease ends early, which costs a second start and, thanks to the token, nothing else.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from companion.serving.jobs.errors import JobsUnavailableError
from companion.serving.jobs.homes import statements
from companion.serving.jobs.homes.sql import Rows, SqlHome
from companion.storage import DatabaseError, open_db, write


class SqliteHome(SqlHome):
    """Jobs in the file at `path`, which is made where it is missing (its folder is not).

    Every thread has a connection of its own; `timeout` (seconds) bounds how long a write waits for
    another. Opening raises what `companion.storage.open_db` raises; what goes wrong later is a
    `JobsUnavailableError` with that as its cause.
    """

    def __init__(
        self, path: Path, *, timeout: float = 10.0, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(f"sqlite:///{path}", self._begun)
        self._path = path
        self._timeout = timeout
        self._clock = clock
        self._of_thread = threading.local()
        with write(self._connection()) as connection:
            for statement in statements.SCHEMA:
                connection.execute(statement)

    def close(self) -> None:
        """Close the connection of the calling thread; others close with their threads."""
        connection = getattr(self._of_thread, "connection", None)
        if connection is not None:
            connection.close()
            del self._of_thread.connection

    @contextmanager
    def _begun(self) -> Iterator[_SqliteSession]:
        try:
            with write(self._connection()) as connection:
                yield _SqliteSession(connection, self._clock())
        except (DatabaseError, sqlite3.Error, OSError) as error:
            raise JobsUnavailableError(self.name, f"{type(error).__name__}: {error}") from error

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = open_db(self._path, busy_timeout=self._timeout)
            connection.row_factory = sqlite3.Row
            self._of_thread.connection = connection
        return connection


class _SqliteSession:
    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self._connection = connection
        self._now = now

    def run(self, statement: str, /, **values: Any) -> Rows:
        asked = statement.replace(":skip_locked", "")
        return list(self._connection.execute(asked, {**values, "now": self._now}))

    def run_many(self, statement: str, values: Sequence[Mapping[str, Any]], /) -> None:
        self._connection.executemany(statement, values)
