"""Online records in one SQLite file: shared by the processes of one machine, and kept.

The rule against going back in time is part of the statement that writes (`ON CONFLICT … WHERE`), so
the database decides it under its own write lock. Reading is one `SELECT` for all keys.

Source: https://www.sqlite.org/lang_upsert.html.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from companion.features.store.records import Record
from companion.storage import open_db, write

_MAKE = """
CREATE TABLE IF NOT EXISTS online (
    view TEXT NOT NULL, key TEXT NOT NULL, stamp TEXT NOT NULL, payload TEXT NOT NULL,
    PRIMARY KEY (view, key)
) WITHOUT ROWID
"""
_PUT = """
INSERT INTO online (view, key, stamp, payload) VALUES (?, ?, ?, ?)
ON CONFLICT (view, key) DO UPDATE SET stamp = excluded.stamp, payload = excluded.payload
WHERE excluded.stamp > online.stamp
"""
# One statement for any number of keys, and no limit on parameters to run into.
_GET = """
SELECT key, stamp, payload FROM online
WHERE view = ? AND key IN (SELECT value FROM json_each(?))
"""


class SqliteHome:
    """Records in the file at `path`, which is made where it is missing (its folder is not).

    Every thread has a connection of its own; `timeout` (seconds) bounds how long a write waits for
    another. A whole `put` is one transaction. Raises what `companion.storage.open_db` and
    `write` raise, `DatabaseBusyError` among them.
    """

    def __init__(self, path: Path, *, timeout: float = 5.0) -> None:
        self.name = f"sqlite:///{path}"
        self._path = path
        self._timeout = timeout
        self._of_thread = threading.local()
        with write(self._connection()) as connection:
            connection.execute(_MAKE)

    def put(self, table: str, records: Iterable[tuple[str, Record]]) -> int:
        """Write what is newer than what is there; how many records that were."""
        with write(self._connection()) as connection:
            before = connection.total_changes
            connection.executemany(_PUT, ((table, key, *record) for key, record in records))
            return connection.total_changes - before

    def get(self, table: str, keys: Sequence[str]) -> list[Record | None]:
        """The record of each key, `None` for one that has none."""
        rows = self._connection().execute(_GET, (table, json.dumps(list(keys))))
        there = {key: Record(stamp, payload) for key, stamp, payload in rows}
        return [there.get(key) for key in keys]

    def close(self) -> None:
        """Close the connection of the calling thread; others close with their threads."""
        connection = getattr(self._of_thread, "connection", None)
        if connection is not None:
            connection.close()
            del self._of_thread.connection

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = open_db(self._path, busy_timeout=self._timeout)
            self._of_thread.connection = connection
        return connection
