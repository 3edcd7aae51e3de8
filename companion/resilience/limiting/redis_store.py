"""Limits on a Redis server, for threads: shared by many processes and machines.

Beside the script (:mod:`companion.resilience.limiting.redis_script`) two things make it fast. The
question is one packet on a connection that was open already, and nothing of a general client stands
around it: retries, hooks and reply parsers cost more than the server does. And a server that is
down costs next to nothing (:mod:`companion.resilience.limiting.outages`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError
from redis.retry import Retry

from companion.resilience.limiting.algorithm import Algorithm
from companion.resilience.limiting.decisions import Decision
from companion.resilience.limiting.outages import FAILURES, Outage, WhenDown
from companion.resilience.limiting.redis_script import Script
from companion.resilience.outcomes import CircuitOpenError
from companion.storage import without_secrets


class RedisStore:
    """Keeps limits on the server at ``url`` (``redis://host:port/db``, ``rediss://``, ``unix://``).

    Args:
        url: where the server is, with user and password if it asks for them.
        when_down: what to decide while it does not answer: ``"open"`` allows everything,
            ``"closed"`` nothing, ``"local"`` keeps the limit in this process.
        timeout: seconds that connecting, or an answer, is waited for.
        rest: seconds for which it is not asked again after a failure; then one hit tries.
        prefix: what its keys begin with. Limiters with equal algorithms, limits and prefixes share
            their counts.
        clock: monotonic seconds, for ``rest`` and for local limits.

    Raises:
        ValueError: a ``when_down`` or ``timeout`` that makes no sense.
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
        self._connections = _Connections(url, positive(timeout))
        self._prefix = prefix

    @property
    def down(self) -> bool:
        """Whether decisions are made without the server just now."""
        return self._outage.down

    def bind(self, algorithm: Algorithm[Any]) -> Callable[[str, float], Decision]:
        """A function from key and cost to a decision, on this server."""
        script = Script(algorithm, self._prefix)
        stand_in = self._outage.stand_in(algorithm)
        call, ask, report = self._outage.breaker.call, self._connections.ask, self._outage.report

        def hit(key: str, cost: float) -> Decision:
            try:
                answer = call(ask, *script.question(key, cost))
            except CircuitOpenError:
                return stand_in(key, cost)
            except FAILURES as error:
                report(error)
                return stand_in(key, cost)
            return script.decision(answer)

        return hit

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._connections.close()


class _Connections:
    """Open connections, the one used last on top; as many as there are threads at the same time."""

    def __init__(self, url: str, timeout: float) -> None:
        # A pool knows how to read a URL; lending connections is done here, and for less.
        pool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
        )
        self._connect: Callable[[], AbstractConnection] = lambda: pool.connection_class(
            **pool.connection_kwargs
        )
        self._idle: list[AbstractConnection] = []
        self._owner = os.getpid()

    def ask(self, by_hash: bytes, by_text: bytes) -> bytes:
        """The server's answer; the text is sent only to a server that does not know the hash.

        A connection that was idle may have died with the server it led to, which is found out only
        by using it. So then, and only then, a new one is tried.
        """
        if self._owner != os.getpid():  # a fork must not talk on its parent's connections
            self._idle, self._owner = [], os.getpid()
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._ask_on(self._connect(), by_hash, by_text)
        try:
            return self._ask_on(connection, by_hash, by_text)
        except RedisConnectionError:
            self.close()
            return self._ask_on(self._connect(), by_hash, by_text)

    def _ask_on(self, connection: AbstractConnection, by_hash: bytes, by_text: bytes) -> bytes:
        try:
            try:
                answer = _exchange(connection, by_hash)
            except NoScriptError:
                answer = _exchange(connection, by_text)
        except ReadOnlyError:
            # What was the primary is a replica now: the name leads elsewhere, or soon will.
            _hang_up(connection)
            self.close()
            raise
        except ResponseError:
            self._idle.append(connection)
            raise
        except BaseException:
            _hang_up(connection)
            raise
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        while self._idle:
            _hang_up(self._idle.pop())


def _exchange(connection: AbstractConnection, question: bytes) -> bytes:
    connection.send_packed_command((question,), check_health=False)  # type: ignore[no-untyped-call]
    answer: bytes = connection.read_response(disable_decoding=True)
    return answer


def _hang_up(connection: AbstractConnection) -> None:
    connection.disconnect()  # type: ignore[no-untyped-call]


def positive(timeout: float) -> float:
    """``timeout`` if it is one.

    Raises:
        ValueError: it is not a positive and finite number of seconds.
    """
    if not 0 < timeout < float("inf"):
        raise ValueError(f"timeout is a positive and finite number of seconds, got {timeout}")
    return timeout
