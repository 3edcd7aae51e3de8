"""Limits that let a bucket fill and drain: the token bucket, and GCRA, its one-number twin.

A *token bucket* holds up to a burst of tokens and gains some every second; a hit takes its cost out
(Turner, *New directions in communications*, 1986). *GCRA*, the generic cell rate algorithm of ITU-T
I.371, remembers only the theoretical arrival time: when the bucket would be full again if everybody
kept to the rate. The two decide alike, always; GCRA needs half the memory and one number to set.

The theoretical arrival time is kept in units (seconds × rate) rather than seconds. A hit then adds
its cost to it, and whole numbers add without rounding; in seconds, ten thousand hits of a tenth of
a millisecond each would drift.
"""

from __future__ import annotations

import math

from companion.resilience.limiting.algorithm import Algorithm
from companion.resilience.limiting.decisions import Decision


class TokenBucket(Algorithm[list[float]]):
    """Tokens flow in at ``limit.rate`` a second, up to ``limit.burst``; a hit takes its cost out.

    Remembers two numbers a key.
    """

    name = "token_bucket"

    def fresh(self) -> list[float]:
        """[tokens, at what time]"""
        return [self._burst, 0.0]

    def decide(self, state: list[float], now: float, cost: float) -> Decision:
        rate, burst = self._rate, self._burst
        tokens, then = state
        if now > then:
            tokens = min(burst, tokens + (now - then) * rate)
        elif now < then:  # the clock was set back: fill on from here
            state[1] = now
        if burst - tokens + cost > self.most:
            return Decision(
                False, burst, max(tokens, 0.0), (cost - tokens) / rate, (burst - tokens) / rate
            )
        if cost:
            tokens -= cost
            state[0], state[1] = tokens, now
        return Decision(True, burst, max(tokens, 0.0), 0.0, (burst - tokens) / rate)

    def whole_at(self, state: list[float]) -> float:
        return state[1] + (self._burst - state[0]) / self._rate


class GCRA(Algorithm[list[float]]):
    """``limit.rate`` units a second with bursts of ``limit.burst``, from one number a key."""

    name = "gcra"

    def fresh(self) -> list[float]:
        """[theoretical arrival, in units]"""
        return [-math.inf]

    def decide(self, state: list[float], now: float, cost: float) -> Decision:
        rate, burst = self._rate, self._burst
        arrived = now * rate
        ahead = state[0] - arrived
        if ahead < 0:
            ahead = 0.0
        elif ahead > self.most:  # the clock was set back: owe no more than the burst
            ahead = burst
            state[0] = arrived + burst
        total = ahead + cost
        if total > self.most:
            return Decision(
                False, burst, max(burst - ahead, 0.0), (total - burst) / rate, ahead / rate
            )
        if cost:
            state[0] = (state[0] if ahead else arrived) + cost
        return Decision(True, burst, max(burst - total, 0.0), 0.0, total / rate)

    def whole_at(self, state: list[float]) -> float:
        return state[0] / self._rate
