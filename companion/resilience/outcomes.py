"""What a circuit breaker tells: a refusal, a change of state, a look inside."""

from __future__ import annotations

from dataclasses import dataclass

from companion.resilience.phases import State


class CircuitOpenError(Exception):
    """The breaker refused the call; the backend was not touched.

    ``retry_after`` is the number of seconds after which a call may pass, at the latest; ``None``
    while the circuit is forced open.  ``state`` is what refused it, ``name`` the breaker's.
    """

    def __init__(
        self, retry_after: float | None, state: State = State.OPEN, name: str = ""
    ) -> None:
        super().__init__(retry_after, state, name)
        self.retry_after = retry_after
        self.state = state
        self.name = name

    def __str__(self) -> str:
        circuit = f"circuit {self.name!r}" if self.name else "circuit"
        if self.retry_after is None:
            return f"{circuit} is {self.state.value} until it is reset"
        return f"{circuit} is {self.state.value}; retry after {self.retry_after:.3g} s"


@dataclass(frozen=True)
class Transition:
    """One change of state, ``at`` seconds by the breaker's clock, and why it happened."""

    before: State
    after: State
    at: float
    reason: str
    name: str = ""


@dataclass(frozen=True)
class Snapshot:
    """A breaker at one moment.

    ``calls``, ``failures`` and ``slow`` are the totals that the present phase decides by: of the
    window when closed, of the probes when half-open, else zero.  ``since`` is when the phase
    began (seconds by the breaker's clock), ``openings`` how often the circuit opened since it
    last closed, ``probes`` how many are under way, ``retry_after`` as in
    :class:`CircuitOpenError` (zero where calls pass).
    """

    name: str
    state: State
    since: float
    calls: int
    failures: int
    slow: int
    openings: int
    probes: int
    retry_after: float | None

    @property
    def failure_rate(self) -> float:
        """Share of calls that failed, 0 to 1; 0 where there were none."""
        return self.failures / self.calls if self.calls else 0.0

    @property
    def slow_call_rate(self) -> float:
        """Share of calls that were slow, 0 to 1; 0 where there were none."""
        return self.slow / self.calls if self.calls else 0.0
