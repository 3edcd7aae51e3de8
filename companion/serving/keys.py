"""API keys: who asks, proven by a secret that is stored nowhere.

A key is `fsk_<id>_<secret>`. The id is public, names the client in logs and limits, and finds the
record; the secret is 256 bits from the system's randomness, of which only the SHA-256 is kept. A
slow password hash would add nothing: it is for secrets that people choose and machines can guess.

Looking up by id and then comparing digests with `hmac.compare_digest` tells a guesser nothing by
the time it takes, and an unknown id is compared too. Refusals do not say which part was wrong. A
key that was proven once is found again by a keyed hash of its whole text (BLAKE2, the key drawn
anew by each process), which nobody outside can compute and which takes half the time.

The prefix lets secret scanners find a key that landed in a repository.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from companion.storage import write_bytes

_KEY = re.compile(rb"fsk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NOBODY = b"\0" * 32
_MARK = 32


class ApiKeyError(Exception):
    """Base of what is wrong with keys."""


class UnknownKeyError(ApiKeyError):
    """There is no key, it has not the form of one, or nobody was given it; it does not say which.

    `is_missing` tells whether any was presented.
    """

    def __init__(self, *, is_missing: bool) -> None:
        super().__init__("an API key is needed" if is_missing else "the API key is not valid")
        self.is_missing = is_missing


class KeyFileError(ApiKeyError):
    """The file at `path` is no list of keys; `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class DuplicateKeyError(ApiKeyError):
    """Two keys have the id `key_id`."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"two keys have the id {key_id}")
        self.key_id = key_id


@dataclass(frozen=True)
class ApiKey:
    """What is kept of a key: its public `id`, who it is for, its digest, and how much it may ask.

    `rate` is requests per second in the long run and `burst` how many at once; `None` for what the
    service usually allows.
    """

    id: str
    name: str
    sha256: str
    rate: float | None = None
    burst: int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{12}", self.id):
            raise ValueError("the id of a key is 12 hexadecimal digits")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError("the digest of a key is 64 hexadecimal digits")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise ValueError(f"rate is requests per second, above 0; got {self.rate}")
        if self.burst is not None and self.burst < 1:
            raise ValueError(f"burst is at least 1; got {self.burst}")


def generate_key(
    name: str, *, rate: float | None = None, burst: int | None = None
) -> tuple[str, ApiKey]:
    """A new key for `name`: the text to hand over, which nobody can find out again, and its record.

    Raises `ValueError` for a rate or a burst that allows nothing.
    """
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    return f"fsk_{key_id}_{secret}", ApiKey(key_id, name, _digest(secret).hex(), rate, burst)


class KeyRing:
    """The keys that are accepted. Immutable: to add or revoke one, make another ring.

    Raises `DuplicateKeyError`.
    """

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys: dict[bytes, tuple[bytes, ApiKey]] = {}
        self._proven: dict[bytes, ApiKey] = {}
        self._own = secrets.token_bytes(_MARK)
        for key in keys:
            if key.id.encode() in self._keys:
                raise DuplicateKeyError(key.id)
            self._keys[key.id.encode()] = bytes.fromhex(key.sha256), key

    def owner(self, presented: bytes | None) -> ApiKey:
        """The record of the key in a header's value; raises `UnknownKeyError`."""
        if presented is None:
            raise UnknownKeyError(is_missing=True)
        mark = hashlib.blake2b(presented, key=self._own, digest_size=_MARK).digest()
        proven = self._proven.get(mark)
        if proven is not None:
            return proven
        found = _KEY.fullmatch(presented)
        if found is None:
            raise UnknownKeyError(is_missing=False)
        expected, key = self._keys.get(found[1], (_NOBODY, None))
        is_right = hmac.compare_digest(hashlib.sha256(found[2]).digest(), expected)
        if key is None or not is_right:
            raise UnknownKeyError(is_missing=False)
        self._proven[mark] = key  # at most one for each key
        return key

    def __iter__(self) -> Iterator[ApiKey]:
        return (key for _, key in self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KeyRing:
        """The ring that `save` wrote; raises `KeyFileError`, `DuplicateKeyError`, `OSError`."""
        place = Path(path)
        try:
            records = json.loads(place.read_bytes())
            if not isinstance(records, list):
                raise TypeError(f"it holds a {type(records).__name__}")
            return cls([ApiKey(**record) for record in records])
        except (ValueError, TypeError) as error:
            raise KeyFileError(place, "it is no list of keys") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the records (no secret among them) to `path`, whole or not at all."""
        records = [asdict(key) for key in self]
        write_bytes(Path(path), json.dumps(records, indent=1).encode() + b"\n", mode=0o600)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
