"""What holds when many threads use one breaker at once."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from companion.instruments import FakeClock
from companion.resilience import (
    CallWindow,
    CircuitBreaker,
    CircuitOpenError,
    State,
    TimeWindow,
    Transition,
    phases,
)


class BackendDownError(Exception):
    pass


@pytest.fixture
def busy_switching() -> Iterator[None]:
    """Let the interpreter change threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(callers: int, do: Callable[[int], None]) -> None:
    """Run ``do(number)`` in ``callers`` threads that start at the same moment."""
    gate = threading.Barrier(callers)

    def wait_and_do(number: int) -> None:
        gate.wait(timeout=30)
        do(number)

    with ThreadPoolExecutor(callers) as pool:
        for done in [pool.submit(wait_and_do, number) for number in range(callers)]:
            done.result(timeout=60)


def tripped(clock: FakeClock, **settings: object) -> CircuitBreaker:
    breaker = CircuitBreaker(min_calls=1, clock=clock, **settings)  # type: ignore[arg-type]

    def down() -> None:
        raise BackendDownError

    with pytest.raises(BackendDownError):
        breaker.call(down)
    return breaker


def test_calls_run_side_by_side() -> None:
    breaker = CircuitBreaker()
    all_inside = threading.Barrier(10)
    together(10, lambda _: breaker.call(all_inside.wait, 30))
    assert breaker.snapshot().calls == 10, "ten calls were inside at the same moment"


@pytest.mark.usefixtures("busy_switching")
@pytest.mark.parametrize("pause", [0.0, 0.001], ids=["as-it-is", "with-slow-permits"])
@pytest.mark.parametrize("permits", [1, 3])
def test_of_50_simultaneous_callers_exactly_the_permitted_probes_pass(
    permits: int, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SlowPermit(phases.Permit):
        """Leaves others time to come between the count of permits and its own entry."""

        def __init__(self, phase: phases.Phase, since: float) -> None:
            time.sleep(pause)
            super().__init__(phase, since)

    if pause:
        monkeypatch.setattr(phases, "Permit", SlowPermit)
    clock = FakeClock()
    breaker = tripped(clock, half_open_permits=permits, half_open_timeout=7.0)
    clock.advance(30)
    reached, refusals = [], []
    release = threading.Event()

    def caller(number: int) -> None:
        def backend() -> None:
            reached.append(number)
            release.wait(30)

        try:
            breaker.call(backend)
        except CircuitOpenError as refused:
            refusals.append(refused)
            if len(refusals) == 50 - permits:
                release.set()

    together(50, caller)
    assert len(reached) == permits
    assert len(refusals) == 50 - permits
    assert {refused.retry_after for refused in refusals} == {7.0}
    assert breaker.state is State.CLOSED


@pytest.mark.usefixtures("busy_switching")
@pytest.mark.parametrize("window", [CallWindow(20_000), TimeWindow(3600)], ids=["calls", "seconds"])
def test_50_threads_lose_no_result(window: CallWindow | TimeWindow) -> None:
    breaker = CircuitBreaker(window=window, failure_rate=1.0)

    def caller(number: int) -> None:
        for turn in range(200):
            try:
                breaker.call(lambda turn=turn: 1 / (turn % 4))
            except ZeroDivisionError:
                continue

    together(50, caller)
    snapshot = breaker.snapshot()
    assert (snapshot.calls, snapshot.failures) == (10_000, 2_500)


def test_results_are_counted_one_at_a_time() -> None:
    class SlowCounter:
        """Leaves others time to come between reading a total and writing it."""

        calls = failures = slow = 0

        def record(self, failed: bool, slow: bool, now: float) -> None:
            calls = self.calls
            time.sleep(0.001)
            self.calls = calls + 1

        def roll(self, now: float) -> None: ...

    class SlowWindow(CallWindow):
        def counter(self) -> SlowCounter:
            return SlowCounter()

    breaker = CircuitBreaker(window=SlowWindow(100))
    together(20, lambda _: breaker.call(int))
    assert breaker.snapshot().calls == 20


@pytest.mark.usefixtures("busy_switching")
def test_50_threads_through_an_outage_leave_a_consistent_closed_breaker() -> None:
    clock = FakeClock()
    heard: list[Transition] = []
    breaker = CircuitBreaker(
        min_calls=5,
        open_for=1.0,
        half_open_permits=3,
        half_open_timeout=1000.0,
        clock=clock,
        listeners=[heard.append],
    )
    admitted: Counter[phases.Phase] = Counter()
    counting = threading.Lock()
    down = threading.Event()

    def call_backend() -> None:
        with breaker.guard() as guard:
            assert guard._permit is not None
            with counting:
                admitted[guard._permit.phase] += 1
            if down.is_set():
                raise BackendDownError

    def caller(number: int) -> None:
        for turn in range(200):
            if number == 0 and turn in (20, 120):
                down.set() if turn == 20 else down.clear()
            if turn % 10 == 0:
                clock.advance(0.1)
            try:
                call_backend()
            except (BackendDownError, CircuitOpenError):
                continue

    together(50, caller)
    down.clear()
    for _ in range(10):
        clock.advance(1.0)
        call_backend()
    assert breaker.state is State.CLOSED
    probes = [count for phase, count in admitted.items() if phase.state is State.HALF_OPEN]
    assert max(probes) <= 3
    afters = [State.CLOSED, *(transition.after for transition in heard)]
    befores = [transition.before for transition in heard]
    assert afters[:-1] == befores, "every transition starts where the one before ended"
    assert afters[-1] is State.CLOSED


def test_the_lock_is_free_while_the_function_a_listener_or_a_policy_runs() -> None:
    clock = FakeClock()
    looks: list[State] = []

    def look_from_another_thread() -> None:
        with ThreadPoolExecutor(1) as pool:
            looks.append(pool.submit(breaker.snapshot).result(timeout=10).state)

    def function() -> None:
        look_from_another_thread()
        raise BackendDownError

    def open_for(openings: int) -> float:
        if looks:
            look_from_another_thread()
        return 30.0

    def failed_result(result: object) -> bool:
        look_from_another_thread()
        return False

    breaker = CircuitBreaker(
        min_calls=1,
        clock=clock,
        open_for=open_for,
        failed_result=failed_result,
        listeners=[lambda transition: look_from_another_thread()],
    )
    with pytest.raises(BackendDownError):
        breaker.call(function)
    assert looks == [State.CLOSED, State.CLOSED, State.OPEN]
    clock.advance(30)
    breaker.call(time.monotonic)
    assert looks[3:] == [State.HALF_OPEN, State.HALF_OPEN, State.CLOSED]


def test_a_caller_does_not_wait_for_a_listener_that_another_thread_is_in() -> None:
    in_listener, let_go = threading.Event(), threading.Event()
    heard: list[State] = []

    def slow_listener(transition: Transition) -> None:
        in_listener.set()
        let_go.wait(30)
        heard.append(transition.after)

    breaker = CircuitBreaker(listeners=[slow_listener])
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(breaker.force_open)
        assert in_listener.wait(30)
        breaker.disable()
        assert heard == []
        let_go.set()
        first.result(timeout=30)
    assert heard == [State.FORCED_OPEN, State.DISABLED], "the first thread told both, in order"


def test_a_verdict_that_was_never_carried_out_is_reached_again() -> None:
    clock = FakeClock()
    killed = False

    def open_for(openings: int) -> float:
        nonlocal killed
        if openings == 2 and not killed:
            killed = True
            raise KeyboardInterrupt
        return 30.0

    breaker = tripped(clock, open_for=open_for)
    clock.advance(30)

    def down() -> None:
        raise BackendDownError

    with pytest.raises(KeyboardInterrupt):
        breaker.call(down)
    assert breaker.state is State.HALF_OPEN
    with pytest.raises(CircuitOpenError):
        breaker.call(down)
    assert breaker.state is State.OPEN
