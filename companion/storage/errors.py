"""The named ways in which storing something can fail.

Each error carries what a caller needs in order to react (the path, how long it waited), so that
nobody has to take a message apart. Those that are a special case of a built-in `OSError` say so
by inheritance: code that already handles `FileExistsError` goes on working.
"""

from pathlib import Path


class AlreadyExistsError(FileExistsError):
    """Something is already published under `path`; nothing was overwritten."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} already exists, and what is published is never overwritten")
        self.path = path


class MissingFolderError(FileNotFoundError):
    """The folder that should hold the file does not exist; it is not made silently."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"the folder {folder} does not exist; create it first")
        self.folder = folder


class DatabaseError(Exception):
    """Base of what goes wrong with one SQLite file, at `path` (empty for one that has no file)."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


class DatabaseBusyError(DatabaseError):
    """Another connection kept the write lock for longer than the busy timeout."""

    def __init__(self, path: Path, waited_seconds: float) -> None:
        super().__init__(
            path,
            f"another connection held the lock for all of the {waited_seconds:.1f} s waited; "
            "find the holder (lsof, fuser) and shorten its transaction: deleting the -wal or "
            "-shm file frees no lock and loses committed rows",
        )
        self.waited_seconds = waited_seconds


class NotADatabaseError(DatabaseError):
    """The file is there, but SQLite cannot read it as a database."""


class ReadOnlyDatabaseError(DatabaseError):
    """The file or its folder may not be written (WAL needs to write in both)."""


class NetworkFilesystemError(DatabaseError):
    """The file lies on a network file system, where WAL's shared memory does not work."""

    def __init__(self, path: Path, filesystem: str) -> None:
        super().__init__(
            path,
            f"lies on {filesystem}, a network file system, and WAL needs memory shared by one "
            "machine; put it on a local disk, or use a database server",
        )
        self.filesystem = filesystem


class WalUnavailableError(DatabaseError):
    """SQLite answered the request for WAL with another journal mode, `mode`."""

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path, f"cannot use write-ahead logging here (journal mode stays {mode!r})")
        self.mode = mode


class TransactionError(DatabaseError):
    """The transaction is not in the state that this call needs (already open, or already ended)."""


class CorruptDatabaseError(DatabaseError):
    """`PRAGMA integrity_check` found damage; `findings` holds its lines."""

    def __init__(self, path: Path, findings: tuple[str, ...]) -> None:
        super().__init__(path, f"integrity check failed: {'; '.join(findings[:3])}")
        self.findings = findings


class BackupTargetInUseError(DatabaseError):
    """The target still has a `-wal` or `-journal` beside it, so somebody may have it open."""
