"""A rate limiter: one algorithm, one store, one question.

What a limiter promises does not depend on which algorithm and which store it is made of: a refused
hit costs nothing; a hit of cost 0 looks and changes nothing; a hit that costs more than the limit
ever gives is refused for ever, and the decision says so; fractions of a unit are kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from math import inf
from typing import Any, Protocol, runtime_checkable

from companion.resilience.limiting.algorithm import Algorithm
from companion.resilience.limiting.decisions import Decision, InvalidCostError
from companion.resilience.limiting.memory import MemoryStore


@runtime_checkable
class Store(Protocol):
    """Where the states of keys lie, and who decides about them one at a time."""

    def bind(self, algorithm: Algorithm[Any]) -> Callable[[str, float], Decision]: ...


@runtime_checkable
class AsyncStore(Protocol):
    """The same for an event loop, which must not wait."""

    def abind(self, algorithm: Algorithm[Any]) -> Callable[[str, float], Awaitable[Decision]]: ...


class RateLimiter:
    """Keeps a limit for each of many keys.

    Args:
        algorithm: how the limit is kept, and which: ``GCRA(Limit.per_minute(100))``.
        store: :class:`MemoryStore` (the default, one of its own), ``RedisStore`` or
            ``AsyncRedisStore``.

    Threads, and with Redis processes and machines, may use one limit together: of many hits at one
    moment exactly as many are allowed as the limit has left.
    """

    def __init__(self, algorithm: Algorithm[Any], store: Store | AsyncStore | None = None) -> None:
        self.algorithm = algorithm
        self.limit = algorithm.limit
        self._burst = algorithm.limit.burst
        home = MemoryStore() if store is None else store
        self._hit = home.bind(algorithm) if isinstance(home, Store) else _not_without_await
        self._ahit = home.abind(algorithm) if isinstance(home, AsyncStore) else None
        # A hit in memory is done before an event loop would notice; one over the network is not.
        self._may_block = not isinstance(home, MemoryStore)

    def __repr__(self) -> str:
        return f"RateLimiter({self.algorithm})"

    def hit(self, key: str, cost: float = 1.0) -> Decision:
        """Take ``cost`` units from what ``key`` has left, if that is enough.

        Raises:
            InvalidCostError: the cost is negative or not a number.
            TypeError: the store is an async one; it belongs to :meth:`ahit`.
        """
        if 0 <= cost <= self._burst:
            return self._hit(key, cost)
        _refuse_nonsense(cost)
        return _never(self._hit(key, 0.0))

    async def ahit(self, key: str, cost: float = 1.0) -> Decision:
        """The same for an event loop; works with a :class:`MemoryStore` as well.

        Raises:
            InvalidCostError: the cost is negative or not a number.
            TypeError: the store would block the event loop; use its async twin.
        """
        if self._ahit is None:
            if self._may_block:
                raise TypeError("this store would block the event loop: use AsyncRedisStore")
            return self.hit(key, cost)
        if 0 <= cost <= self._burst:
            return await self._ahit(key, cost)
        _refuse_nonsense(cost)
        return _never(await self._ahit(key, 0.0))


def _refuse_nonsense(cost: float) -> None:
    if not cost > 0:
        raise InvalidCostError(cost)


def _never(looked: Decision) -> Decision:
    """The answer to a hit that costs more than the limit ever gives, from that to a look."""
    return replace(looked, allowed=False, retry_after=inf)


def _not_without_await(key: str, cost: float) -> Decision:
    raise TypeError("this store is an async one: await ahit(…)")
