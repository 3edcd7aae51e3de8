"""What clients send, on the disk before anybody is told that it was accepted.

A request's body is streamed into a file, counted and hashed on the way, so that memory stays flat
and a body beyond the limit is refused at the limit and not at its end. The file gets its job's name
only once it is whole and synced; a process that dies before leaves a `.tmp-…` that nobody was
promised, and `sweep` takes it away.

Where several machines work, the folder has to be one that all of them see.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from companion.serving.jobs.errors import TooLargeError, WrongFormatError
from companion.serving.jobs.job import Kind
from companion.storage import sync_folder
from companion.storage.atomic import TEMPORARY_PREFIX, temporary_path

_PARQUET = b"PAR1"
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "bzip2",
    b"\xfd7zX": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_LONGEST_MAGIC = 4


class Uploads:
    """The uploaded files in `folder`, which is made, readable by its owner alone, if missing."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder = folder
        self.max_bytes = max_bytes

    def begin(self, kind: Kind) -> Upload:
        """An upload to write to; use it in a `with` block, which removes what was not kept."""
        return Upload(self.folder, kind, self.max_bytes)

    def path(self, job_id: str) -> Path:
        """Where the file of a job stands, as long as it does."""
        return self.folder / job_id

    def remove(self, job_id: str) -> None:
        """Take the file of a job that is over off the disk."""
        self.path(job_id).unlink(missing_ok=True)

    def sweep(self, *, older_than: float = 86_400.0, clock: Callable[[], float] = time.time) -> int:
        """Remove what uploads that were cut off left behind `older_than` seconds ago; how many."""
        left = [
            path
            for path in self.settled(older_than=older_than, clock=clock)
            if path.name.startswith(TEMPORARY_PREFIX)
        ]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def settled(self, *, older_than: float, clock: Callable[[], float]) -> list[Path]:
        """The files that were last written `older_than` seconds ago or longer."""
        found = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a worker may be faster
                if clock() - path.stat().st_mtime > older_than:
                    found.append(path)
        return found


class Upload:
    """One file on its way in: `write` as it comes, then `keep` it under a job's name."""

    def __init__(self, folder: Path, kind: Kind, max_bytes: int) -> None:
        self.kind = kind
        self.bytes = 0
        self._folder = folder
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self._start = b""
        self._path = temporary_path(folder)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "wb")

    @property
    def sha256(self) -> str:
        """Of what has been written so far, in hexadecimal."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """Add `data`.

        Raises `TooLargeError`, and `WrongFormatError` as soon as the first bytes tell.
        """
        self.bytes += len(data)
        if self.bytes > self._max_bytes:
            raise TooLargeError(self._max_bytes)
        if len(self._start) < _LONGEST_MAGIC:
            self._start += data[: _LONGEST_MAGIC - len(self._start)]
            if len(self._start) == _LONGEST_MAGIC:
                self._check_start()
        self._hash.update(data)
        self._file.write(data)

    def keep(self, job_id: str) -> Path:
        """Make it survive a power cut, under the name of `job_id`. Raises `WrongFormatError`."""
        self._check_start()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        final = self._folder / job_id
        os.replace(self._path, final)
        sync_folder(self._folder)
        return final

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _check_start(self) -> None:
        if not self._start:
            raise WrongFormatError(self.kind, "empty")
        if (self._start == _PARQUET) != (self.kind == "parquet"):
            raise WrongFormatError(self.kind, "Parquet" if self.kind == "csv" else "something else")
        # A few kilobytes of gzip can be gigabytes of text: nothing is decompressed here at all.
        for magic, name in _COMPRESSED.items():
            if self._start.startswith(magic):
                raise WrongFormatError(self.kind, f"compressed ({name})")
