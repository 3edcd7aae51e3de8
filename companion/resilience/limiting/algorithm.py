"""The seam between how a limit is kept and where: an algorithm knows no store, no lock, no clock.

An algorithm turns *(state, now, cost)* into a decision, and changes the state if the hit is allowed
and costs something. Where the state lies, who may touch it at the same time, and what time it is,
is the store's business. That is what lets one set of tests run over every algorithm in every store.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from companion.resilience.limiting.decisions import Decision, Limit

S = TypeVar("S")


class Algorithm(ABC, Generic[S]):
    """One way to keep a limit; ``S`` is what it remembers of one key."""

    name: ClassVar[str]
    """What it is called, also by its script for Redis."""
    most: float
    """Units past which it refuses: the burst, and a millionth of it or a thousandth of a unit."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._rate = limit.rate
        self._burst = limit.burst
        self._window = limit.window
        # Three hits of 0.1 add up to more than 0.3, and a caller who comes back after exactly
        # `retry_after` may be a rounding error early: neither is to be refused for it.
        self.most = limit.burst + min(limit.burst, 1000.0) * 1e-6

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.limit})"

    @abstractmethod
    def fresh(self) -> S:
        """What there is to remember of somebody who has never called."""

    @abstractmethod
    def decide(self, state: S, now: float, cost: float) -> Decision:
        """Decide on a hit at ``now`` (seconds) that costs between 0 and the burst.

        The hit is taken off in ``state`` if it is allowed; a hit that is refused, or costs 0,
        changes nothing that anybody could notice. A clock that was set back is coped with: nobody
        is locked out for longer than the limit's window.
        """

    @abstractmethod
    def whole_at(self, state: S) -> float:
        """The time from which ``state`` says no more than a fresh one, so that it may go."""
