"""Online records on a Redis server: shared by many machines.

A key is `features:<view>:<version>:<entity>`; its value is one string, the stamp's forty digits and
then the payload, so that reading any number of keys is one `MGET`. Writing is a Lua script, which
Redis runs as one step: compare the stamp that is there with the new one, and set or leave. A
read-compare-write from the client would race with another materialisation.

A scoring request cannot wait for a lost server, so the client's own patience is turned off: it
retries ten times by default, each time with the full socket timeout. Here nothing is retried and no
single wait exceeds `timeout`.

Sources: https://redis.io/docs/latest/develop/programmability/eval-intro/,
https://redis.io/docs/latest/commands/mget/.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from companion.features.store.errors import OnlineStoreError, OnlineStoreUnavailableError
from companion.features.store.records import STAMP_DIGITS, Record
from companion.storage import without_secrets

_PUT = f"""
local moved = 0
for i, key in ipairs(KEYS) do
  local old = redis.call('GETRANGE', key, 0, {STAMP_DIGITS - 1})
  if old == '' or string.sub(ARGV[i], 1, {STAMP_DIGITS}) > old then
    redis.call('SET', key, ARGV[i])
    moved = moved + 1
  end
end
return moved
"""
# The server does nothing else while a script runs: some hundred keys are well under a millisecond
# each way, and large enough that the round trips do not count.
_BATCH = 500


class RedisHome:
    """Records on the server at `url` (`redis://host:port/db`, `rediss://`, `unix://path`).

    `timeout` is the longest that connecting, or any one answer, is waited for, in seconds. A
    materialisation is many batches: each key changes in one step, not all of them together.

    Raises `OnlineStoreUnavailableError` where the server does not answer in time, and
    `OnlineStoreError` where it answers with an error.
    """

    def __init__(self, url: str, *, timeout: float = 0.25) -> None:
        if not 0 < timeout < float("inf"):
            raise ValueError(f"timeout is seconds, above 0 and finite; got {timeout}")
        self.name = without_secrets(url)
        self._timeout = timeout
        self._client: Any = Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self._script = self._client.register_script(_PUT)

    def put(self, table: str, records: Iterable[tuple[str, Record]]) -> int:
        """Write what is newer than what is there; how many records that were."""
        moved = 0
        remaining = iter(records)
        while batch := list(islice(remaining, _BATCH)):
            keys = [_key(table, key) for key, _ in batch]
            values = [record.stamp + record.payload for _, record in batch]
            moved += self._asked(self._script, keys=keys, args=values)
        return moved

    def get(self, table: str, keys: Sequence[str]) -> list[Record | None]:
        """The record of each key, `None` for one that has none."""
        if not keys:
            return []
        values = self._asked(self._client.mget, [_key(table, key) for key in keys])
        return [
            None if value is None else Record(value[:STAMP_DIGITS], value[STAMP_DIGITS:])
            for value in values
        ]

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _asked(self, ask: Callable[..., Any], *args: Any, **named: Any) -> Any:
        try:
            return ask(*args, **named)
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise OnlineStoreUnavailableError(self.name, str(error), self._timeout) from error
        except RedisError as error:
            raise OnlineStoreError(self.name, str(error)) from error


def _key(table: str, key: str) -> str:
    return f"features:{table}:{key}"
