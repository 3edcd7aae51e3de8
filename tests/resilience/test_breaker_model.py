"""The breaker against a reference model that remembers everything in plain lists.

Hypothesis makes up histories: calls that begin and end in any order, with any outcome, while time
passes and somebody steers.  After each step both must agree.  Times are multiples of a quarter
second, so that no comparison depends on rounding.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from companion.instruments import FakeClock
from companion.resilience import CallWindow, CircuitBreaker, CircuitOpenError, State, TimeWindow

OPEN_FOR, HALF_OPEN_TIMEOUT, SLOW = 4.0, 2.0, 1.0


@dataclasses.dataclass(eq=False)
class Call:
    """One call under way: what the model knows of it, and the real guard."""

    era: int
    begun: float
    guard: Any
    given_up: bool = False


class Model:
    """States by the book, recomputed from lists at every step."""

    def __init__(self, window: CallWindow | TimeWindow, permits: int, min_calls: int) -> None:
        self.window, self.permits, self.min_calls = window, permits, min_calls
        self.era, self.openings = 0, 0
        self.state = State.CLOSED
        self.until = 0.0
        self.events: list[tuple[float, bool, bool]] = []
        self.probes: list[Call] = []

    def enter(self, state: State, now: float) -> None:
        self.state, self.era = state, self.era + 1
        self.events, self.probes = [], []
        if state is State.OPEN:
            self.openings += 1
            self.until = now + OPEN_FOR * self.openings
        elif state is not State.HALF_OPEN:
            self.openings = 0

    def in_window(self, now: float) -> list[tuple[float, bool, bool]]:
        if self.state is State.HALF_OPEN:
            return self.events
        if isinstance(self.window, CallWindow):
            return self.events[-self.window.size :]
        width = self.window.seconds / self.window.buckets
        return [e for e in self.events if e[0] // width > now // width - self.window.buckets]

    def refusal(self, now: float) -> tuple[float | None] | None:
        """Let time act, then say whether a call that begins now is refused and for how long."""
        if self.state is State.OPEN and now >= self.until:
            self.enter(State.HALF_OPEN, now)
        if self.state is State.HALF_OPEN:
            hung = [probe for probe in self.probes if now - probe.begun >= HALF_OPEN_TIMEOUT]
            for probe in hung:
                probe.given_up = True
                self.probes.remove(probe)
                self.events.append((now, True, False))
            self.judge(now)
        if self.state is State.OPEN:
            return (self.until - now,)
        if self.state is State.FORCED_OPEN:
            return (None,)
        if self.state is State.HALF_OPEN and len(self.probes) + len(self.events) >= self.permits:
            return (min(probe.begun for probe in self.probes) + HALF_OPEN_TIMEOUT - now,)
        return None

    def finish(self, call: Call, now: float, failed: bool | None) -> None:
        if call.era != self.era or call.given_up or self.state is State.DISABLED:
            return
        if call in self.probes:
            self.probes.remove(call)
        if failed is not None:
            self.events.append((now, failed, now - call.begun >= SLOW))
            self.judge(now)

    def judge(self, now: float) -> None:
        events = self.in_window(now)
        failures = sum(failed for _, failed, _ in events)
        slow = sum(slow for _, _, slow in events)
        if self.state is State.HALF_OPEN:
            if failures / self.permits >= 0.5 or slow / self.permits >= 0.75:
                self.enter(State.OPEN, now)
            elif len(events) == self.permits:
                self.enter(State.CLOSED, now)
        elif len(events) >= self.min_calls and (
            failures / len(events) >= 0.5 or slow / len(events) >= 0.75
        ):
            self.enter(State.OPEN, now)


class BreakerHistories(RuleBasedStateMachine):
    @initialize(
        window=st.sampled_from([CallWindow(4), CallWindow(9), TimeWindow(4.0, buckets=4)]),
        permits=st.integers(1, 3),
        min_calls=st.integers(1, 4),
    )
    def start(self, window: CallWindow | TimeWindow, permits: int, min_calls: int) -> None:
        self.clock = FakeClock(100.0)
        self.model = Model(window, permits, min_calls)
        self.under_way: list[Call] = []
        self.breaker = CircuitBreaker(
            failure_rate=0.5,
            slow_call_rate=0.75,
            slow_call_duration=SLOW,
            min_calls=min_calls,
            window=window,
            open_for=lambda openings: OPEN_FOR * openings,
            half_open_permits=permits,
            half_open_timeout=HALF_OPEN_TIMEOUT,
            ignore=(KeyError,),
            clock=self.clock,
        )

    def begin_call(self) -> Call | None:
        guard = self.breaker.guard()
        refusal = self.model.refusal(self.clock())
        if refusal is not None:
            with pytest.raises(CircuitOpenError) as refused:
                guard.__enter__()
            assert refused.value.retry_after == refusal[0]
            assert refused.value.state is self.model.state
            return None
        guard.__enter__()
        call = Call(self.model.era, self.clock(), guard)
        if self.model.state is State.HALF_OPEN:
            self.model.probes.append(call)
        return call

    def end_call(self, call: Call, error: BaseException | None) -> None:
        failed = None if isinstance(error, KeyError | KeyboardInterrupt) else error is not None
        self.model.finish(call, self.clock(), failed)
        call.guard.__exit__(type(error), error, None)

    outcomes = st.sampled_from([None, None, OSError(), OSError(), KeyError(), KeyboardInterrupt()])

    @rule()
    def begin(self) -> None:
        if call := self.begin_call():
            self.under_way.append(call)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), error=outcomes)
    def end(self, data: st.DataObject, error: BaseException | None) -> None:
        which = data.draw(st.integers(0, len(self.under_way) - 1))
        self.end_call(self.under_way.pop(which), error)

    @rule(times=st.integers(1, 5), error=outcomes)
    def call_at_once(self, times: int, error: BaseException | None) -> None:
        for _ in range(times):
            if call := self.begin_call():
                self.end_call(call, error)

    @rule(quarters=st.integers(1, 24))
    def pass_time(self, quarters: int) -> None:
        self.clock.advance(quarters / 4)

    @rule(to=st.sampled_from(["force_open", "disable", "reset", "reset"]))
    def steer(self, to: str) -> None:
        states = {"force_open": State.FORCED_OPEN, "disable": State.DISABLED}
        self.model.enter(states.get(to, State.CLOSED), self.clock())
        getattr(self.breaker, to)()

    @invariant()
    def both_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        snapshot = self.breaker.snapshot()
        events = self.model.in_window(self.clock())
        assert snapshot.state is self.model.state
        assert snapshot.calls == len(events)
        assert snapshot.failures == sum(failed for _, failed, _ in events)
        assert snapshot.slow == sum(slow for _, _, slow in events)
        assert snapshot.probes == len(self.model.probes)
        assert snapshot.openings == self.model.openings


TestBreakerHistories = BreakerHistories.TestCase
TestBreakerHistories.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, derandomize=True
)
