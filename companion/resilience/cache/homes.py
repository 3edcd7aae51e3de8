"""Where cached values live: in this process, or on a Redis server that all processes share.

A home knows nothing of features or models. It keeps a value under a key for a while and promises:

- `get` returns `MISSING` for a key that has no value (any more), so that 0.0, False and None are
  values like any other;
- a value lives no longer than its `ttl`, and may go earlier, when room is needed;
- a home that cannot answer raises `CacheHomeError`, within a stated time.

Values are JSON values (numbers, strings, booleans, None, lists, dictionaries), treated as frozen.
`get` and `put` are for threads, `aget` and `aput` for an event loop.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol


class Missing(Enum):
    """The type of `MISSING`, which is what a home returns for a key without a value."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


class CacheHomeError(Exception):
    """The home at `home` (no password in it) gave no useful answer; `reason` says why."""

    def __init__(self, home: str, reason: str) -> None:
        super().__init__(home, reason)
        self.home = home
        self.reason = reason

    def __str__(self) -> str:
        return f"cache at {self.home}: {self.reason}"


class CacheUnavailableError(CacheHomeError):
    """The home did not answer in time, or at all; asking again now would likely end the same."""


class CacheHome(Protocol):
    """One place for cached values; `remote` says whether it can be down or slow."""

    @property
    def name(self) -> str: ...

    @property
    def remote(self) -> bool: ...

    def get(self, key: str) -> object: ...

    def put(self, key: str, value: object, ttl: float) -> None: ...

    async def aget(self, key: str) -> object: ...

    async def aput(self, key: str, value: object, ttl: float) -> None: ...

    def close(self) -> None: ...

    async def aclose(self) -> None: ...


def open_cache_home(url: str, *, max_entries: int = 10_000, timeout: float = 0.05) -> CacheHome:
    """The home behind `url`: `memory:`, `redis://…`, `rediss://…` or `unix://…`.

    `max_entries` bounds the home in memory; `timeout` is the longest wait, in seconds, for
    connecting to Redis and for each of its answers. Redis is first asked when it is first used.

    Raises:
        ValueError: any other URL; `max_entries` below 1; `timeout` not positive and finite.
    """
    scheme = url.partition(":")[0]
    if scheme == "memory":
        return MemoryHome(max_entries=max_entries)
    if scheme in ("redis", "rediss", "unix"):
        from companion.resilience.cache.redis import RedisHome

        return RedisHome(url, timeout=timeout)
    raise ValueError(f"no cache home for {scheme!r}: memory:, redis://, rediss://, unix://")


class MemoryHome:
    """Values in this process: at most `max_entries`, of which the least recently used goes first.

    Safe with any number of threads. `clock` is monotonic seconds. Gone with the process, and each
    worker has its own, so more workers find less in it.
    """

    name = "memory"
    remote = False

    def __init__(
        self, *, max_entries: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if max_entries < 1:
            raise ValueError(f"max_entries is at least 1; got {max_entries}")
        self._max_entries = max_entries
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[float, object]] = OrderedDict()

    @property
    def size(self) -> int:
        """How many entries there are, those included that are over and nobody asked for since."""
        return len(self._entries)

    def get(self, key: str) -> object:
        """The value, or `MISSING`."""
        now = self._clock()
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return MISSING
            ends, value = entry
            if now >= ends:
                del self._entries[key]
                return MISSING
            self._entries.move_to_end(key)
            return value

    def put(self, key: str, value: object, ttl: float) -> None:
        """Keep `value` for `ttl` seconds."""
        ends = self._clock() + ttl
        with self._lock:
            self._entries[key] = ends, value
            self._entries.move_to_end(key)
            if len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)

    async def aget(self, key: str) -> object:
        return self.get(key)

    async def aput(self, key: str, value: object, ttl: float) -> None:
        self.put(key, value, ttl)

    def close(self) -> None:
        """Nothing to give back."""

    async def aclose(self) -> None:
        """Nothing to give back."""
