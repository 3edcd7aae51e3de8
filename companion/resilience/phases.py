"""The states of a circuit breaker, each a small object that owns its statistics and permits.

The idea: a *phase* is the time between two transitions.  A call takes a permit from the phase in
which it begins, and its result counts only while that same phase lasts.  The identity of the
phase is thus the *generation* (as gobreaker numbers it): a result that comes late finds another
phase in place and changes nothing.

Phases know no lock and no clock; the breaker calls them under its lock and passes the time, in
seconds.  :meth:`Phase.record` answers with the :class:`Verdict` that a result leads to, if any.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from companion.resilience.window import Counter


class State(enum.Enum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    """All pass, results are counted."""
    OPEN = "open"
    """None passes until the open period is over."""
    HALF_OPEN = "half-open"
    """A few probes pass to find out whether the backend is back."""
    FORCED_OPEN = "forced open"
    """None passes until somebody calls ``reset``."""
    DISABLED = "disabled"
    """All pass, nothing is counted."""


class Verdict(NamedTuple):
    """Where a phase wants to go, and why."""

    state: State
    reason: str


class Totals(NamedTuple):
    """What a phase decides by, and how many of its probes are under way."""

    calls: int = 0
    failures: int = 0
    slow: int = 0
    probes: int = 0


class Permit:
    """One caller's right to pass, given at ``since``; its phase is its generation."""

    __slots__ = ("phase", "since")

    def __init__(self, phase: Phase, since: float) -> None:
        self.phase = phase
        self.since = since


@dataclass(frozen=True, slots=True)
class Limits:
    """The shares of failed and of slow calls (0 to 1) that are too many."""

    failure_rate: float
    slow_call_rate: float

    def exceeded(self, calls: int, failures: int, slow: int) -> str | None:
        """Which limit these totals reach, in words; ``None`` if neither."""
        if failures / calls >= self.failure_rate:
            return f"{failures} of {calls} calls failed"
        if slow / calls >= self.slow_call_rate:
            return f"{slow} of {calls} calls were slow"
        return None


class Phase:
    """What all phases share.  ``openings`` counts how often the circuit opened since it closed.

    ``standing`` is the one permit that everybody shares where nobody has to ask, else ``None``.
    """

    __slots__ = ("openings", "since", "standing")

    state: ClassVar[State]

    def __init__(self, since: float, openings: int = 0) -> None:
        self.since = since
        self.openings = openings
        self.standing: Permit | None = None

    def admit(self, now: float) -> Permit | None:
        """A permit for one call, or ``None``."""
        return self.standing

    def record(self, permit: Permit, failed: bool | None, slow: bool, now: float) -> Verdict | None:
        """Take a permit back with the result of its call; ``failed=None`` says nothing."""
        return None

    def overdue(self, now: float) -> Verdict | None:
        """Where the mere passing of time leads."""
        return None

    def retry_after(self, now: float) -> float | None:
        """Seconds until a refused caller may hope to pass; ``None`` if nobody knows."""
        return 0.0

    def totals(self, now: float) -> Totals:
        return Totals()


class Closed(Phase):
    __slots__ = ("counter", "limits", "min_calls")

    state = State.CLOSED

    def __init__(self, since: float, counter: Counter, limits: Limits, min_calls: int) -> None:
        super().__init__(since)
        self.standing = Permit(self, since)
        self.counter = counter
        self.limits = limits
        self.min_calls = min_calls

    def record(self, permit: Permit, failed: bool | None, slow: bool, now: float) -> Verdict | None:
        if failed is None:
            return None
        counter = self.counter
        counter.record(failed, slow, now)
        if not (counter.failures or counter.slow) or counter.calls < self.min_calls:
            return None
        reason = self.limits.exceeded(counter.calls, counter.failures, counter.slow)
        return Verdict(State.OPEN, reason) if reason else None

    def totals(self, now: float) -> Totals:
        counter = self.counter
        counter.roll(now)
        return Totals(counter.calls, counter.failures, counter.slow)


class Open(Phase):
    """Closed to all until ``until``."""

    __slots__ = ("until",)

    state = State.OPEN

    def __init__(self, since: float, openings: int, until: float) -> None:
        super().__init__(since, openings)
        self.until = until

    def overdue(self, now: float) -> Verdict | None:
        return Verdict(State.HALF_OPEN, "the open period is over") if now >= self.until else None

    def retry_after(self, now: float) -> float | None:
        return max(0.0, self.until - now)


class HalfOpen(Phase):
    """A fixed number of probes decides, by the same limits as in CLOSED.

    A probe whose result says nothing gives its permit to another.  One that has not come back
    ``timeout`` seconds after it began counts as failed, so that a hung or lost call cannot keep
    the circuit here for ever.
    """

    __slots__ = ("calls", "failures", "limits", "permits", "probes", "slow", "timeout")

    state = State.HALF_OPEN

    def __init__(
        self, since: float, openings: int, permits: int, timeout: float, limits: Limits
    ) -> None:
        super().__init__(since, openings)
        self.permits = permits
        self.timeout = timeout
        self.limits = limits
        self.calls = self.failures = self.slow = 0
        self.probes: dict[Permit, None] = {}  # An ordered set: oldest first.

    def admit(self, now: float) -> Permit | None:
        if self.calls + len(self.probes) >= self.permits:
            return None
        probe = Permit(self, now)
        self.probes[probe] = None
        return probe

    def record(self, permit: Permit, failed: bool | None, slow: bool, now: float) -> Verdict | None:
        if permit not in self.probes:  # It was given up as hung.
            return None
        del self.probes[permit]
        if failed is None:
            return None
        self.calls += 1
        self.failures += failed
        self.slow += slow
        return self._verdict()

    def overdue(self, now: float) -> Verdict | None:
        while self.probes and now - (oldest := next(iter(self.probes))).since >= self.timeout:
            del self.probes[oldest]
            self.calls += 1
            self.failures += 1
        # Asked anew each time: whoever reached the verdict may have been killed on the way.
        return self._verdict()

    def retry_after(self, now: float) -> float | None:
        """At the latest when the oldest probe counts as hung."""
        oldest = next(iter(self.probes), None)
        return 0.0 if oldest is None else max(0.0, oldest.since + self.timeout - now)

    def totals(self, now: float) -> Totals:
        return Totals(self.calls, self.failures, self.slow, len(self.probes))

    def _verdict(self) -> Verdict | None:
        """Judge against all permits, so that no success still to come could change it."""
        reason = self.limits.exceeded(self.permits, self.failures, self.slow)
        if reason:
            return Verdict(State.OPEN, f"half-open: {reason}")
        if self.calls == self.permits:
            return Verdict(State.CLOSED, f"{self.calls - self.failures} probes succeeded")
        return None


class ForcedOpen(Phase):
    __slots__ = ()

    state = State.FORCED_OPEN

    def retry_after(self, now: float) -> float | None:
        return None


class Disabled(Phase):
    __slots__ = ()

    state = State.DISABLED

    def __init__(self, since: float) -> None:
        super().__init__(since)
        self.standing = Permit(self, since)
