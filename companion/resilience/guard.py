"""A circuit breaker around a block instead of a function.

A breaker is shared, a block is not: each block takes a permit of its own and so needs a context
manager of its own, which is why the breaker itself is none.  A guard does between ``__enter__`` and
``__exit__`` what :meth:`CircuitBreaker.call` does around a function, with the same inner methods.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from companion.resilience.phases import Permit

if TYPE_CHECKING:
    from companion.resilience.breaker import CircuitBreaker


class Guard:
    """Guards one block, sync or async: ``with breaker.guard() as guard:``."""

    __slots__ = ("_begun", "_breaker", "_failed", "_permit")

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self._permit: Permit | None = None
        self._failed = False

    def fail(self) -> None:
        """Count the block as failed even if it ends without an exception."""
        self._failed = True

    def __enter__(self) -> Guard:
        """Pass, or raise :class:`CircuitOpenError`.

        Raises:
            RuntimeError: this guard has been entered before.
        """
        if self._permit is not None:
            raise RuntimeError("a guard guards one block; ask the breaker for another")
        breaker = self._breaker
        self._permit = breaker._standing or breaker._admit()
        self._begun = breaker._clock() if breaker._needs_time else 0.0
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._permit is not None
        failed = self._failed if error is None else self._breaker._is_failure(error)
        self._breaker._settle(self._permit, self._begun, failed)

    async def __aenter__(self) -> Guard:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)
