"""A model file that is parsed only after its checksum was verified.

Reading once and parsing the very bytes that were hashed leaves no moment in which the file could be
exchanged between the check and the use.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from companion.serving.errors import ChecksumMismatchError

Parsed = TypeVar("Parsed")


@dataclass
class ChecksummedFile(Generic[Parsed]):
    """A loader: called, it reads `path`, verifies, and gives the bytes to `parse`.

    `sha256` is the expected digest in hexadecimal, or a function that is asked for it at every
    load. `version` is the start of the digest of what was loaded last.
    """

    path: Path
    sha256: str | Callable[[], str]
    parse: Callable[[bytes], Parsed]
    version: str = field(default="", init=False)

    def __call__(self) -> Parsed:
        """The parsed model; raises `ChecksumMismatchError`, `OSError`, and what `parse` raises."""
        expected = (self.sha256 if isinstance(self.sha256, str) else self.sha256()).lower()
        data = self.path.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise ChecksumMismatchError(self.path, expected, found)
        parsed = self.parse(data)
        self.version = found[:12]
        return parsed
