"""SQLite opened so that several processes can share it and a crash loses nothing.

Four decisions, each against a way in which it is usually opened:

- **Write-ahead log.** Readers and the one writer do not block each other. The `-wal` file beside
  the database *holds committed rows*: it is data, never a lock file, and nothing here deletes
  one.
- **`BEGIN IMMEDIATE`.** A plain `BEGIN` reads first and asks for the write lock later. If somebody
  wrote in between, SQLite must refuse at once, *whatever the busy timeout*, since waiting cannot
  make the old snapshot new. Asking first turns that error into a wait. (Python's own default is
  worse: it begins at the first write, so the read before it stands outside the transaction and
  the update of somebody else is lost without an error.)
- **A busy timeout**, so that the wait has an end and the end has a name (`DatabaseBusyError`).
- **`synchronous=FULL`.** With WAL the usual advice is NORMAL, which never corrupts but may forget
  the last commits after a power cut. What this room stores was promised to somebody, so every
  commit costs one fsync. Keep transactions few and small rather than unsynced.

`sqlite3` runs in driver-autocommit mode (`isolation_level=None`), which is the same on every
Python from 3.11 on: no statement opens a transaction behind our back, and `BEGIN` is ours.

Sources: https://www.sqlite.org/wal.html, https://www.sqlite.org/lang_transaction.html,
https://www.sqlite.org/backup.html, https://www.sqlite.org/pragma.html#pragma_synchronous.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from companion.storage.atomic import sync_folder, temporary_path
from companion.storage.errors import (
    BackupTargetInUseError,
    CorruptDatabaseError,
    DatabaseBusyError,
    DatabaseError,
    MissingFolderError,
    NetworkFilesystemError,
    NotADatabaseError,
    ReadOnlyDatabaseError,
    TransactionError,
    WalUnavailableError,
)
from companion.storage.filesystems import network_filesystem

SIDECARS = ("-wal", "-shm", "-journal")
_RETRY_SECONDS = 0.01
_MAGIC = b"SQLite format 3\0"
_SMALLEST_PAGE_BYTES = 512


def open_db(
    path: str | os.PathLike[str],
    *,
    busy_timeout: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> sqlite3.Connection:
    """Open (or make) the database at `path`: WAL, FULL, foreign keys on, `BEGIN` left to `write`.

    `busy_timeout` is in seconds; every statement on the connection waits at most that long for a
    lock. A connection belongs to the thread that opened it; open one for each thread and process.

    Raises `MissingFolderError`, `IsADirectoryError`, `ReadOnlyDatabaseError`,
    `NetworkFilesystemError`, `NotADatabaseError` (the file is left as it is),
    `WalUnavailableError`, `DatabaseBusyError`, and `ValueError` for a `busy_timeout` that is
    negative or not a number.
    """
    if not 0 <= busy_timeout < float("inf"):
        raise ValueError(f"busy_timeout is seconds, from 0 up and finite; got {busy_timeout}")
    place = Path(path)
    _refuse_unusable_place(place)
    connection = sqlite3.connect(place, timeout=busy_timeout, isolation_level=None)
    try:
        _configure(connection, place, busy_timeout, clock, sleep)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def write(
    connection: sqlite3.Connection, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[sqlite3.Connection]:
    """One write transaction: all of the block is committed or, on any exception at all, none.

    The write lock is taken before the block runs, so what it reads cannot be changed by others
    until it has written. Wait for nothing inside (no network, no user): everybody else's busy
    timeout is running.

    Raises `DatabaseBusyError` when the lock was not to be had within the connection's busy timeout,
    `ReadOnlyDatabaseError`, and `TransactionError` where a transaction is already open or the block
    ended it (`executescript` commits first).
    """
    if connection.in_transaction:
        raise TransactionError(
            _path_of(connection), "a transaction is already open; do not nest write()"
        )
    began = clock()
    try:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise _translated(error, _path_of(connection), clock() - began) from error
        yield connection
        if not connection.in_transaction:
            raise TransactionError(
                _path_of(connection),
                "the block ended its own transaction (COMMIT, ROLLBACK, or executescript, which "
                "commits first); write() cannot promise all or nothing for it",
            )
        connection.execute("COMMIT")
    except BaseException:
        # Also on KeyboardInterrupt: the lock of an abandoned notebook cell would block everybody.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def backup(
    source: sqlite3.Connection,
    target: str | os.PathLike[str],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Copy all that is committed in `source`, WAL included, into one file at `target`.

    SQLite's backup API copies one consistent state while others go on reading and writing;
    copying the database file alone would leave behind whatever still stands in its `-wal`. The
    copy is checked with `PRAGMA integrity_check` and only then takes the place of an older
    backup, atomically. The copy has the permission bits of the source.

    Raises `TransactionError` while `source` has an open transaction (the copy would hold rows
    that nobody committed), `BackupTargetInUseError` where `target` still has a `-wal` or
    `-journal` (they would be played into the new file), `DatabaseBusyError`,
    `CorruptDatabaseError`, `MissingFolderError`. On any failure an older backup stays untouched.
    """
    place = Path(target)
    origin = _path_of(source)
    if source.in_transaction:
        raise TransactionError(origin, "has an open transaction; commit it before the backup")
    if not place.parent.is_dir():
        raise MissingFolderError(place.parent)
    if place.exists() and origin.exists() and place.samefile(origin):
        raise BackupTargetInUseError(place, "is the very database that is to be backed up")
    live = [suffix for suffix in ("-wal", "-journal") if Path(f"{place}{suffix}").exists()]
    if live:
        raise BackupTargetInUseError(
            place,
            f"has a {' and a '.join(live)} file beside it; close what uses it or take another name",
        )
    began = clock()

    def give_up_when_busy(status: int, remaining: int, total: int) -> None:
        # By now the busy timeout has run out once; `Connection.backup` itself would try for ever.
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise DatabaseBusyError(origin, clock() - began)

    temporary = temporary_path(place.parent)
    # SQLite would make the file itself, readable to whom the umask allows.
    private = stat.S_IMODE(origin.stat().st_mode) if origin.exists() else 0o600
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, private))
    try:
        with closing(sqlite3.connect(temporary, isolation_level=None)) as copy:
            try:
                source.backup(copy, progress=give_up_when_busy)
                # The copy inherits WAL mode; in DELETE mode one file is all there is to carry.
                copy.execute("PRAGMA journal_mode = DELETE")
            except sqlite3.Error as error:
                raise _translated(error, origin, clock() - began) from error
            _check_integrity(copy, origin)
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, place)
    except BaseException:
        # Our own copy, which nobody else has opened: the one case in which sidecars may go.
        for suffix in ("", *SIDECARS):
            Path(f"{temporary}{suffix}").unlink(missing_ok=True)
        raise
    sync_folder(place.parent)


def _refuse_unusable_place(path: Path) -> None:
    if not path.parent.is_dir():
        raise MissingFolderError(path.parent)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a database file")
    if _is_foreign_stub(path):
        raise NotADatabaseError(path, "is not an SQLite database; it was left as it is")
    filesystem = network_filesystem(path)
    if filesystem is not None:
        raise NetworkFilesystemError(path, filesystem)
    effective = os.access in os.supports_effective_ids
    for needed in (path, path.parent) if path.exists() else (path.parent,):
        if not os.access(needed, os.W_OK, effective_ids=effective):
            raise ReadOnlyDatabaseError(path, f"may not be written: no permission on {needed}")


def _is_foreign_stub(path: Path) -> bool:
    # SQLite takes a file shorter than its smallest page for a new database and would overwrite it.
    if not path.is_file() or not 0 < path.stat().st_size < _SMALLEST_PAGE_BYTES:
        return False
    return not path.read_bytes().startswith(_MAGIC)


def _configure(
    connection: sqlite3.Connection,
    path: Path,
    busy_timeout: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    # While somebody writes to a file that is not in WAL mode yet, SQLite answers the change of mode
    # with "locked" at once and never asks the busy handler, so the waiting has to be done here.
    began = clock()
    while True:
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
            mode = str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
            break
        except sqlite3.Error as error:
            waited = clock() - began
            named = _translated(error, path, waited)
            if not isinstance(named, DatabaseBusyError) or waited >= busy_timeout:
                raise named from error
            sleep(_RETRY_SECONDS)
    if mode != "wal":
        raise WalUnavailableError(path, mode)


def _check_integrity(connection: sqlite3.Connection, path: Path) -> None:
    try:
        findings = tuple(str(line) for (line,) in connection.execute("PRAGMA integrity_check"))
    except sqlite3.DatabaseError as error:
        raise CorruptDatabaseError(path, (str(error),)) from error
    if findings != ("ok",):
        raise CorruptDatabaseError(path, findings)


def _path_of(connection: sqlite3.Connection) -> Path:
    databases = {name: file for _, name, file in connection.execute("PRAGMA database_list")}
    return Path(databases["main"] or ":memory:")


def _translated(error: sqlite3.Error, path: Path, waited_seconds: float) -> Exception:
    # The low byte is the primary code; the rest says which of its cases (SQLITE_BUSY_SNAPSHOT, …).
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseBusyError(path, waited_seconds)
    if primary == sqlite3.SQLITE_NOTADB:
        return NotADatabaseError(path, "is not an SQLite database; it was left as it is")
    if primary == sqlite3.SQLITE_CORRUPT:
        return CorruptDatabaseError(path, (str(error),))
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return ReadOnlyDatabaseError(path, str(error))
    return DatabaseError(path, str(error))
