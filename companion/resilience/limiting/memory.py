"""Limits in this process: a dictionary, one lock, and a monotonic clock.

The fastest home, and the right one where one process sees all the traffic or every process may have
a limit of its own. Behind several workers the limits add up: eight workers allow eight times as
much.

A key that is idle goes away without a thread that looks for it. Each key stands once in a queue,
with the time at which it could be forgotten; every hit looks at the head of the queue and forgets a
few keys that are due, or sends them to the back if they were used since.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from companion.resilience.limiting.algorithm import Algorithm
from companion.resilience.limiting.decisions import Decision

S = TypeVar("S")

_FORGOTTEN_AT_ONCE = 32
"""Keys that one hit looks after at most, so that no hit pays for a crowd that has left."""


class MemoryStore:
    """Keeps limits in this process; threads may share it.

    Args:
        clock: monotonic seconds.

    Limiters with equal algorithms and limits that share a store share their counts. ``len()`` is
    how many keys are remembered.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tables: dict[tuple[object, ...], _Table[Any]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return sum(len(table) for table in self._tables.values())

    def bind(self, algorithm: Algorithm[Any]) -> Callable[[str, float], Decision]:
        """A function from key and cost to a decision, in this store."""
        with self._lock:
            table = self._tables.setdefault(
                (algorithm.name, algorithm.limit), _Table(algorithm, self._clock)
            )
        return table.hit


class _Table(Generic[S]):
    """The keys of one algorithm and one limit."""

    def __init__(self, algorithm: Algorithm[S], clock: Callable[[], float]) -> None:
        self._algorithm = algorithm
        self._decide = algorithm.decide
        self._clock = clock
        self._states: dict[str, S] = {}
        self._due: deque[tuple[float, str]] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._states)

    def hit(self, key: str, cost: float) -> Decision:
        with self._lock:
            # Read under the lock, or a thread that was held up would bring an older time.
            now = self._clock()
            state = self._states.get(key)
            if state is None:
                decision = self._first(key, now, cost)
            else:
                decision = self._decide(state, now, cost)
            if self._due and self._due[0][0] <= now:
                self._forget(now)
            return decision

    def _first(self, key: str, now: float, cost: float) -> Decision:
        state = self._algorithm.fresh()
        decision = self._decide(state, now, cost)
        if cost and decision.allowed:  # whoever used nothing need not be remembered
            self._states[key] = state
            self._due.append((self._algorithm.whole_at(state), key))
        return decision

    def _forget(self, now: float) -> None:
        for _ in range(min(_FORGOTTEN_AT_ONCE, len(self._due))):
            if self._due[0][0] > now:
                return
            _, key = self._due.popleft()
            whole_at = self._algorithm.whole_at(self._states[key])
            if whole_at <= now:
                del self._states[key]
            else:
                self._due.append((whole_at, key))
