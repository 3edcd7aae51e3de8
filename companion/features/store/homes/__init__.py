"""Where online values live: in this process, in one SQLite file, or on a Redis server.

A home knows nothing of features. It keeps one record per key in tables of its own, and promises
three things, which one test-suite holds against all of them:

- `put` replaces a record only by one with a greater stamp, and decides that in one step on the side
  of the store, so that two processes that materialise at once cannot put an older value last;
- `get` answers for all keys in one round trip, in their order;
- a store that does not answer is an error with a name, within a stated time.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from companion.features.store.records import Record


class OnlineHome(Protocol):
    """One place for online records; `name` is what errors call it (never a password in it)."""

    @property
    def name(self) -> str: ...

    def put(self, table: str, records: Iterable[tuple[str, Record]]) -> int:
        """Write what is newer than what is there; how many records that were."""
        ...

    def get(self, table: str, keys: Sequence[str]) -> list[Record | None]:
        """The record of each key, `None` for one that has none."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


def open_home(url: str, *, timeout: float | None = None) -> OnlineHome:
    """The home behind `url`: `memory:`, `sqlite:///file.db`, `redis://…`, `rediss://…`, `unix://…`.

    `timeout` is how many seconds an answer is waited for; without it, each home has its own default
    (a quarter of a second for Redis, five for another writer to the SQLite file).

    Raises `ValueError` for any other, and what opening an SQLite file raises. A Redis server is
    first asked when it is first used.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        from companion.features.store.homes.memory import MemoryHome

        return MemoryHome()
    if scheme == "sqlite" and rest.startswith("///") and len(rest) > 3:
        from companion.features.store.homes.sqlite import SqliteHome

        return SqliteHome(Path(rest[3:]), timeout=5.0 if timeout is None else timeout)
    if scheme in ("redis", "rediss", "unix"):
        from companion.features.store.homes.redis import RedisHome

        return RedisHome(url, timeout=0.25 if timeout is None else timeout)
    raise ValueError(
        f"no online home for {scheme!r}: memory:, sqlite:///file.db, redis://, rediss://, unix://"
    )
