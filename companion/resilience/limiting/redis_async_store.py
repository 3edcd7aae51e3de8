"""Limits on a Redis server, for an event loop: as :mod:`companion.resilience.limiting.redis_store`.

Here hundreds of questions may be open at one moment, so they share one connection and travel in
batches: what is asked while a batch is on its way makes up the next one. A caller who is alone
waits for one round trip, one of five hundred for two, and nobody pays for five hundred.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from companion.resilience.limiting.algorithm import Algorithm
from companion.resilience.limiting.decisions import Decision
from companion.resilience.limiting.outages import FAILURES, Outage, WhenDown
from companion.resilience.limiting.redis_script import Script
from companion.resilience.limiting.redis_store import positive
from companion.resilience.outcomes import CircuitOpenError
from companion.storage import without_secrets


class AsyncRedisStore:
    """Keeps limits on the server at ``url``, and never makes the event loop wait.

    The arguments are those of ``RedisStore``; ``timeout`` spans all of one batch, from connecting
    to the last answer.
    """

    def __init__(
        self,
        url: str,
        *,
        when_down: WhenDown = "local",
        timeout: float = 0.05,
        rest: float = 1.0,
        prefix: str = "limit",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outage = Outage(without_secrets(url), when_down, rest, clock)
        self._line = _Line(url, positive(timeout))
        self._prefix = prefix

    @property
    def down(self) -> bool:
        """Whether decisions are made without the server just now."""
        return self._outage.down

    def abind(self, algorithm: Algorithm[Any]) -> Callable[[str, float], Awaitable[Decision]]:
        """A function from key and cost to a decision to await, on this server."""
        script = Script(algorithm, self._prefix)
        stand_in = self._outage.stand_in(algorithm)
        call, ask, report = self._outage.breaker.acall, self._line.ask, self._outage.report

        async def hit(key: str, cost: float) -> Decision:
            try:
                answer = await call(ask, *script.question(key, cost))
            except CircuitOpenError:
                return stand_in(key, cost)
            except FAILURES as error:
                report(error)
                return stand_in(key, cost)
            return script.decision(answer)

        return hit

    async def aclose(self) -> None:
        """Close the connection; the next question opens another."""
        await self._line.close()


class _Question(NamedTuple):
    by_hash: bytes
    by_text: bytes
    answer: asyncio.Future[bytes]


class _Line:
    """One connection, and the questions that wait for it."""

    def __init__(self, url: str, timeout: float) -> None:
        pool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
        )
        self._connect: Callable[[], AbstractConnection] = pool.make_connection
        self._timeout = timeout
        self._connection: AbstractConnection | None = None
        self._waiting: list[_Question] = []
        self._carrier: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, by_hash: bytes, by_text: bytes) -> bytes:
        """The server's answer; the text is sent only to a server that does not know the hash."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # a connection belongs to the loop that opened it
            self._loop, self._connection, self._carrier, self._waiting = loop, None, None, []
        question = _Question(by_hash, by_text, loop.create_future())
        self._waiting.append(question)
        if self._carrier is None:
            # A task of its own: whoever asked first may be cancelled, the others still wait.
            self._carrier = loop.create_task(self._carry())
        return await question.answer

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _carry(self) -> None:
        """Take what waits to the server, batch by batch, until nothing waits."""
        batch: list[_Question] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                async with asyncio.timeout(self._timeout):
                    await self._deliver(batch)
        except (RedisError, OSError) as error:
            await self.close()  # first: whoever asks while it closes is given up too
            self._give_up(batch, error)
        except BaseException:
            self._give_up(batch, None)
            raise
        finally:
            self._carrier = None

    async def _deliver(self, batch: list[_Question]) -> None:
        replies = await self._exchange_or_reconnect([question.by_hash for question in batch])
        if any(isinstance(reply, NoScriptError) for reply in replies):
            replies = await self._exchange([question.by_text for question in batch])
        for question, reply in zip(batch, replies, strict=True):
            if question.answer.done():  # its caller was cancelled
                continue
            if isinstance(reply, ResponseError):
                question.answer.set_exception(reply)
            else:
                question.answer.set_result(reply)
        if any(isinstance(reply, ReadOnlyError) for reply in replies):
            # What was the primary is a replica now: the name leads elsewhere, or soon will.
            await self.close()

    async def _exchange_or_reconnect(self, commands: list[bytes]) -> list[bytes | ResponseError]:
        """A connection that was idle may have died meanwhile; then, once, a new one is tried."""
        if self._connection is None:
            return await self._exchange(commands)
        try:
            return await self._exchange(commands)
        except RedisConnectionError:
            await self.close()
            return await self._exchange(commands)

    async def _exchange(self, commands: list[bytes]) -> list[bytes | ResponseError]:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        await connection.send_packed_command(commands, check_health=False)
        replies: list[bytes | ResponseError] = []
        for _ in commands:
            try:
                replies.append(await connection.read_response(disable_decoding=True))
            except ResponseError as error:
                replies.append(error)
        return replies

    def _give_up(self, batch: list[_Question], error: Exception | None) -> None:
        """Nobody waits for a server that is down: neither this batch nor the next."""
        for question in (*batch, *self._waiting):
            if question.answer.done():
                continue
            if error is None:
                question.answer.cancel()
            else:
                question.answer.set_exception(error)
        self._waiting = []
