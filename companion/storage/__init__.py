"""What must survive a crash: files and folders that appear whole, and SQLite opened properly.

`write_bytes`, `write_text` and `publish_folder` make a name appear in one step; `open_db`,
`write` and `backup` make one SQLite file safe for several processes; `without_secrets` says where
something is kept without saying how to get in. Importing the room loads only the standard library.
"""

from companion.storage.addresses import without_secrets
from companion.storage.atomic import publish_folder, sync_folder, write_bytes, write_text
from companion.storage.errors import (
    AlreadyExistsError,
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
from companion.storage.sqlite import backup, open_db, write

__all__ = [
    "AlreadyExistsError",
    "BackupTargetInUseError",
    "CorruptDatabaseError",
    "DatabaseBusyError",
    "DatabaseError",
    "MissingFolderError",
    "NetworkFilesystemError",
    "NotADatabaseError",
    "ReadOnlyDatabaseError",
    "TransactionError",
    "WalUnavailableError",
    "backup",
    "open_db",
    "publish_folder",
    "sync_folder",
    "without_secrets",
    "write",
    "write_bytes",
    "write_text",
]
