"""Cached values on a Redis server: shared by all workers, and never worth waiting for.

A cache that is down must cost less than it saves. The client's defaults are made for data that one
cannot do without: in redis-py 8, ten retries with backoff and five seconds for each attempt. Here
nothing is retried and no single wait exceeds `timeout`; whoever asks computes instead.

Let the server evict: without `maxmemory` and `maxmemory-policy allkeys-lru` a full Redis refuses
writes. Values are JSON, so that nothing is executed when one is read.

Sources: https://redis.io/docs/latest/develop/reference/eviction/,
https://redis.io/docs/latest/commands/set/.
"""

from __future__ import annotations

import json
from typing import Any

from redis import BlockingConnectionPool, Redis
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from companion.resilience.cache.homes import MISSING, CacheHomeError, CacheUnavailableError
from companion.storage import without_secrets

_PREFIX = "prediction:"
_CONNECTIONS = 32  # for each client; a crowd queues for at most `timeout` and then computes


class RedisHome:
    """Values on the server at `url` (`redis://host:port/db`, `rediss://`, `unix://path`).

    Threads and event loops have a client each. The asynchronous one belongs to the loop that first
    used it, as its connections do.

    Raises:
        ValueError: `timeout` is not a positive, finite number of seconds.
    """

    remote = True

    def __init__(self, url: str, *, timeout: float = 0.05) -> None:
        if not 0 < timeout < float("inf"):
            raise ValueError(f"timeout is seconds, above 0 and finite; got {timeout}")
        self.name = without_secrets(url)
        patience = {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "max_connections": _CONNECTIONS,
            "timeout": timeout,
        }
        self._client: Any = Redis(
            connection_pool=BlockingConnectionPool.from_url(
                url, retry=Retry(NoBackoff(), 0), **patience
            )
        )
        self._aclient: Any = aioredis.Redis(
            connection_pool=aioredis.BlockingConnectionPool.from_url(
                url, retry=AsyncRetry(NoBackoff(), 0), **patience
            )
        )

    def get(self, key: str) -> object:
        """The value, or `MISSING`.

        Raises:
            CacheUnavailableError: the server does not answer in time, or not at all.
            CacheHomeError: it answers with an error, or what lies there is no value of ours.
        """
        try:
            return self._read(self._client.get(_PREFIX + key))
        except (RedisError, OSError) as error:
            raise self._named(error) from error

    def put(self, key: str, value: object, ttl: float) -> None:
        """Keep `value` for `ttl` seconds.

        Raises:
            CacheUnavailableError, CacheHomeError: as for `get`.
            TypeError: `value` is no JSON value.
        """
        written = json.dumps(value)
        try:
            self._client.set(_PREFIX + key, written, px=_milliseconds(ttl))
        except (RedisError, OSError) as error:
            raise self._named(error) from error

    async def aget(self, key: str) -> object:
        """As `get`, without holding up the loop."""
        try:
            return self._read(await self._aclient.get(_PREFIX + key))
        except (RedisError, OSError) as error:
            raise self._named(error) from error

    async def aput(self, key: str, value: object, ttl: float) -> None:
        """As `put`, without holding up the loop."""
        written = json.dumps(value)
        try:
            await self._aclient.set(_PREFIX + key, written, px=_milliseconds(ttl))
        except (RedisError, OSError) as error:
            raise self._named(error) from error

    def close(self) -> None:
        """Close the threads' connections."""
        self._client.connection_pool.disconnect()

    async def aclose(self) -> None:
        """Close all connections; on the loop that used them."""
        self.close()
        await self._aclient.connection_pool.disconnect()

    def _read(self, written: bytes | None) -> object:
        if written is None:
            return MISSING
        try:
            return json.loads(written)
        except ValueError as error:
            raise CacheHomeError(self.name, f"an entry is not JSON: {error}") from error

    def _named(self, error: Exception) -> CacheHomeError:
        if isinstance(error, (RedisConnectionError, RedisTimeoutError, OSError)):
            return CacheUnavailableError(self.name, str(error))
        return CacheHomeError(self.name, str(error))


def _milliseconds(ttl: float) -> int:
    return max(1, int(ttl * 1000))
