"""Limits that count within a window of time: fixed, sliding by a log, sliding by two counters.

All three say "so many units per window" and differ in where the window begins. A *fixed* window
begins at a multiple of its length, so twice the limit passes around such a moment. A *log* looks
back exactly one window from now and pays for it with one entry per hit. The *sliding counter* keeps
the totals of the current and the previous fixed window and supposes that the previous one was spent
evenly. Cloudflare described it in 2017 (*How we built rate limiting capable of scaling to millions
of domains*) and found few wrong decisions in real traffic; who spends a window at its very end gets
more than the limit after it, and who always pushes against a small limit gets somewhat less.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from operator import itemgetter

from companion.resilience.limiting.algorithm import Algorithm
from companion.resilience.limiting.decisions import Decision


class FixedWindow(Algorithm[list[float]]):
    """``limit.burst`` units in each window of ``limit.window`` seconds.

    Windows begin at multiples of their length on the store's clock. Remembers two numbers a key.
    """

    name = "fixed_window"

    def fresh(self) -> list[float]:
        """[number of the window, units used in it]"""
        return [0.0, 0.0]

    def decide(self, state: list[float], now: float, cost: float) -> Decision:
        window, burst = self._window, self._burst
        number = now // window
        used = state[1] if number == state[0] else 0.0
        left = (number + 1) * window - now
        total = used + cost
        if total > self.most:
            return Decision(False, burst, max(burst - used, 0.0), left, left)
        if cost:
            state[0], state[1] = number, total
        return Decision(True, burst, max(burst - total, 0.0), 0.0, left if total else 0.0)

    def whole_at(self, state: list[float]) -> float:
        return (state[0] + 1) * self._window


class SlidingCounter(Algorithm[list[float]]):
    """About ``limit.burst`` units in any ``limit.window`` seconds, from two counters.

    What the previous window used counts by the share of it that is still within reach. Remembers
    three numbers a key.
    """

    name = "sliding_counter"

    def fresh(self) -> list[float]:
        """[number of the window, units used in the one before, units used in it]"""
        return [0.0, 0.0, 0.0]

    def decide(self, state: list[float], now: float, cost: float) -> Decision:
        window, burst = self._window, self._burst
        number = now // window
        last, previous, current = state
        if number != last:
            previous = current if number == last + 1 else 0.0
            current = 0.0
        left = (number + 1) * window - now
        used = previous * left / window + current
        if used + cost > self.most:
            room = burst - cost - current
            wait = (
                left - room * window / previous
                if previous and room >= 0
                else left + window - (burst - cost) * window / current
            )
            reset = left + window if current else left
            return Decision(False, burst, max(burst - used, 0.0), wait, reset)
        if cost:
            current += cost
            state[0], state[1], state[2] = number, previous, current
        reset = left + window if current else left if previous else 0.0
        return Decision(True, burst, max(burst - used - cost, 0.0), 0.0, reset)

    def whole_at(self, state: list[float]) -> float:
        return (state[0] + 2) * self._window


class Log:
    """The hits of one key that are still within the window, oldest first.

    An entry is (time, units used up to and including it since the log was last empty), so that the
    units between two entries are one subtraction.
    """

    __slots__ = ("entries", "gone")

    def __init__(self) -> None:
        self.entries: deque[tuple[float, float]] = deque()
        self.gone = 0.0  # what the entries that have left had used


_used_up_to = itemgetter(1)


class SlidingLog(Algorithm[Log]):
    """Exactly ``limit.burst`` units in any ``limit.window`` seconds.

    **Memory is not constant**: one entry a hit, so up to ``burst / cost`` entries for every key. It
    is the yardstick for the others, and the choice for limits that are small and must be exact.
    """

    name = "sliding_log"

    def fresh(self) -> Log:
        return Log()

    def decide(self, state: Log, now: float, cost: float) -> Decision:
        window, burst = self._window, self._burst
        used = self._used(state, now)
        entries = state.entries
        total = used + cost
        if total > self.most:
            # The first entry whose leaving makes enough room; mostly that is the oldest.
            enough = state.gone + total - self.most
            frees, upto = entries[0]
            if upto < enough:
                frees = entries[bisect_left(entries, enough, key=_used_up_to)][0]
            return Decision(
                False,
                burst,
                max(burst - used, 0.0),
                frees + window - now,
                entries[-1][0] + window - now,
            )
        if cost:
            entries.append((now, state.gone + total))
        reset = entries[-1][0] + window - now if entries else 0.0
        return Decision(True, burst, max(burst - total, 0.0), 0.0, reset)

    def whole_at(self, state: Log) -> float:
        return state.entries[-1][0] + self._window if state.entries else -math.inf

    def _used(self, state: Log, now: float) -> float:
        """Forget what has left the window; the units of what is still in it."""
        entries = state.entries
        if entries and entries[-1][0] > now:  # the clock was set back: they count as of now
            state.entries = entries = deque((min(time, now), upto) for time, upto in entries)
        horizon = now - self._window
        while entries and entries[0][0] <= horizon:
            state.gone = entries.popleft()[1]
        if not entries:
            state.gone = 0.0
            return 0.0
        return entries[-1][1] - state.gone
