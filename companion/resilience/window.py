"""Rolling windows: how did the most recent calls go?

The idea: keep running totals and correct them when something enters or leaves, so that one more
call costs the same whether the window holds ten events or a million.  The last *N calls* live in a
ring; the last *seconds* in a ring of buckets, because remembering each event would cost memory in
proportion to traffic.  Nygard (*Release It!*, ch. 5) asks for a fault density over time rather
than a count; the bucketed window is the one of Netflix's Hystrix.

The settings (:class:`CallWindow`, :class:`TimeWindow`) are immutable and may be shared; each
phase of a breaker gets a counter of its own from them.  Counters are not thread-safe: the breaker
holds its lock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Counter(Protocol):
    """Running totals over a window: calls seen, and how many of them failed or were slow."""

    calls: int
    failures: int
    slow: int

    def record(self, failed: bool, slow: bool, now: float) -> None:
        """Count one finished call."""

    def roll(self, now: float) -> None:
        """Forget what has left the window by ``now``."""


@dataclass(frozen=True)
class CallWindow:
    """The last ``size`` calls, however long ago they were.

    Raises:
        ValueError: ``size`` below 1.
    """

    size: int = 100

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a call window holds at least 1 call, got size={self.size}")

    def counter(self) -> Counter:
        return _Ring(self.size)


@dataclass(frozen=True)
class TimeWindow:
    """The calls that finished in the last ``seconds``, exact to one of ``buckets`` parts.

    The window moves by whole buckets: it covers the current, unfinished one and the
    ``buckets - 1`` before it.

    Raises:
        ValueError: ``seconds`` not positive and finite, or ``buckets`` below 1.
    """

    seconds: float
    buckets: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"a time window covers a positive time, got seconds={self.seconds}")
        if self.buckets < 1:
            raise ValueError(f"a time window has at least 1 bucket, got buckets={self.buckets}")

    def counter(self) -> Counter:
        return _Buckets(self.seconds / self.buckets, self.buckets)


class _Ring:
    """One byte per remembered call: bit 0 failed, bit 1 slow, so an empty place counts nothing."""

    __slots__ = ("_next", "_outcomes", "_size", "calls", "failures", "slow")

    def __init__(self, size: int) -> None:
        self.calls = self.failures = self.slow = 0
        self._outcomes = bytearray(size)
        self._size = size
        self._next = 0

    def record(self, failed: bool, slow: bool, now: float) -> None:
        place = self._next
        entering = failed | slow << 1
        leaving = self._outcomes[place]
        if entering != leaving:
            self._outcomes[place] = entering
            self.failures += (entering & 1) - (leaving & 1)
            self.slow += (entering >> 1) - (leaving >> 1)
        self._next = place + 1 if place + 1 < self._size else 0
        if self.calls < self._size:
            self.calls += 1

    def roll(self, now: float) -> None:
        """Calls leave only when others enter."""


class _Buckets:
    """Totals per bucket of time; bucket ``n`` covers ``[n × width, (n + 1) × width)``.

    A bucket is ``[calls, failures, slow]``.
    """

    __slots__ = ("_bucket", "_ends", "_number", "_ring", "_width", "calls", "failures", "slow")

    def __init__(self, width: float, buckets: int) -> None:
        self.calls = self.failures = self.slow = 0
        self._width = width
        self._ring = [[0, 0, 0] for _ in range(buckets)]
        self._bucket = self._ring[0]
        self._number = self._ends = -math.inf

    def record(self, failed: bool, slow: bool, now: float) -> None:
        # A thread that read its clock just before another one rolled the window counts as current.
        if now >= self._ends:
            self.roll(now)
        bucket = self._bucket
        bucket[0] += 1
        self.calls += 1
        if failed:
            bucket[1] += 1
            self.failures += 1
        if slow:
            bucket[2] += 1
            self.slow += 1

    def roll(self, now: float) -> None:
        number = now // self._width
        passed = number - self._number
        if passed <= 0:
            return
        size = len(self._ring)
        for back in range(int(min(passed, size))):
            bucket = self._ring[int(number - back) % size]
            self.calls -= bucket[0]
            self.failures -= bucket[1]
            self.slow -= bucket[2]
            bucket[:] = (0, 0, 0)
        self._bucket = self._ring[int(number) % size]
        self._number = number
        self._ends = (number + 1) * self._width
