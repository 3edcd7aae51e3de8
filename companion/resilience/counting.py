"""The circuit breaker that people memorise, kept to be measured against the real one.

It counts failures, waits by the wall clock and believes any success. Do not use it: question 23
and its demo show on this code what each of those decisions costs. The decisions are those of the
usual interview answer; the clock is an argument only so that an hour can pass in a second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any


class CountingBreaker:
    """Opens at `threshold` failures, tries again `timeout` seconds later, closes at a success."""

    def __init__(
        self,
        threshold: int = 5,
        timeout: float = 60.0,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.threshold, self.timeout, self.clock = threshold, timedelta(seconds=timeout), clock
        self.state, self.failures, self.opened_at = "closed", 0, datetime.min

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        self._before()
        try:
            result = function(*args)
        except Exception:
            self._failed()
            raise
        self._succeeded()
        return result

    async def acall(self, function: Callable[[], Awaitable[Any]]) -> Any:
        """`call` for coroutines, which the memorised version does not have."""
        self._before()
        try:
            result = await function()
        except Exception:
            self._failed()
            raise
        self._succeeded()
        return result

    def _before(self) -> None:
        if self.state == "open":
            if self.clock() - self.opened_at <= self.timeout:
                raise RuntimeError("circuit is open")
            self.state = "half-open"

    def _failed(self) -> None:
        self.failures += 1
        if self.failures >= self.threshold:
            self.state, self.opened_at = "open", self.clock()

    def _succeeded(self) -> None:
        if self.state == "half-open":
            self.state, self.failures = "closed", 0
