"""What is asked of a rate limiter and what it answers: a limit, a cost, a decision.

A limit is two numbers, whatever the algorithm: how many units a second in the long run (the rate),
and how many at once (the burst). A window algorithm reads the same two numbers as *so many units
per window*: burst units in every burst / rate seconds. So any algorithm can stand in for any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self


class InvalidCostError(ValueError):
    """A hit costs zero or more units; ``cost`` is what was asked for instead."""

    def __init__(self, cost: float) -> None:
        super().__init__(f"a hit costs 0 or more units, got {cost}")
        self.cost = cost


@dataclass(frozen=True, slots=True)
class Limit:
    """``rate`` units a second in the long run, at most ``burst`` units at once.

    A unit is what the caller says it is: a request, a row, a kilobyte. Fractions are fine.

    Raises:
        ValueError: a number that is not positive and finite; the message names it.
    """

    rate: float
    burst: float

    def __post_init__(self) -> None:
        for name, value in (("rate", self.rate), ("burst", self.burst)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is positive and finite, got {value}")
            object.__setattr__(self, name, float(value))

    @property
    def window(self) -> float:
        """Seconds in which the whole burst comes back: 60 for a hundred a minute."""
        # Twelve digits are more than any clock has, and 7 / (7 / 60) is to be 60.
        return float(f"{self.burst / self.rate:.12g}")

    @classmethod
    def per_second(cls, units: float, *, burst: float | None = None) -> Self:
        """``units`` every second; all of them at once unless ``burst`` says otherwise."""
        return cls(units, units if burst is None else burst)

    @classmethod
    def per_minute(cls, units: float, *, burst: float | None = None) -> Self:
        """``units`` every minute; all of them at once unless ``burst`` says otherwise."""
        return cls(units / 60, units if burst is None else burst)

    @classmethod
    def per_hour(cls, units: float, *, burst: float | None = None) -> Self:
        """``units`` every hour; all of them at once unless ``burst`` says otherwise."""
        return cls(units / 3600, units if burst is None else burst)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a limiter says to one hit, and what the caller needs to pass on.

    Attributes:
        allowed: whether the hit may go ahead. If not, it has cost nothing.
        limit: units at once, the burst of the limit.
        remaining: units that are left now, after this hit; fractions are kept.
        retry_after: seconds after which the same hit would be allowed, if nobody else comes in
            between. 0 if it is allowed, infinite if it costs more than the limit ever gives.
        reset: seconds until all is as if nobody had ever called.
    """

    allowed: bool
    limit: float
    remaining: float
    retry_after: float
    reset: float

    @property
    def never(self) -> bool:
        """Whether waiting is in vain: the hit costs more than the limit ever gives."""
        return self.retry_after == math.inf
