"""When the circuit opens, half-opens and closes; one thread, fake clock."""

from __future__ import annotations

import datetime as dt
import inspect
import math
import pickle
import time
from collections.abc import Callable
from concurrent.futures import CancelledError

import pytest

from companion.instruments import FakeClock
from companion.resilience import (
    CallWindow,
    CircuitBreaker,
    CircuitOpenError,
    State,
    TimeWindow,
    Transition,
)


class BackendDownError(Exception):
    pass


def ok() -> str:
    return "ok"


def down() -> None:
    raise BackendDownError


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(BackendDownError):
            breaker.call(down)


def open_breaker(clock: FakeClock, **settings: object) -> CircuitBreaker:
    breaker = CircuitBreaker(min_calls=2, clock=clock, **settings)  # type: ignore[arg-type]
    fail(breaker, 2)
    assert breaker.state is State.OPEN
    return breaker


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.0)


# ----- closed -----------------------------------------------------------------------------------


def test_a_call_returns_what_the_function_returns_and_passes_its_arguments() -> None:
    assert CircuitBreaker().call(divmod, 7, 2) == (3, 1)
    assert CircuitBreaker().call(int, "ff", base=16) == 255


def test_an_exception_reaches_the_caller_unchanged() -> None:
    error = BackendDownError("as it was")

    def raises() -> None:
        raise error

    with pytest.raises(BackendDownError) as caught:
        CircuitBreaker().call(raises)
    assert caught.value is error


def test_it_opens_when_the_failure_rate_is_reached(clock: FakeClock) -> None:
    breaker = CircuitBreaker(failure_rate=0.5, min_calls=4, clock=clock)
    breaker.call(ok)
    breaker.call(ok)
    fail(breaker)
    assert breaker.state is State.CLOSED
    fail(breaker)
    assert breaker.state is State.OPEN


def test_a_rate_just_below_the_limit_stays_closed(clock: FakeClock) -> None:
    breaker = CircuitBreaker(failure_rate=0.07, min_calls=100, window=CallWindow(100), clock=clock)
    for _ in range(94):
        breaker.call(ok)
    fail(breaker, 6)
    assert breaker.state is State.CLOSED
    fail(breaker)
    assert breaker.snapshot().openings == 1, "7 of 100 is a rate of 0.07, rounding or not"


def test_it_never_opens_on_fewer_calls_than_the_minimum(clock: FakeClock) -> None:
    breaker = CircuitBreaker(min_calls=5, clock=clock)
    fail(breaker, 4)
    assert breaker.state is State.CLOSED


def test_a_success_that_completes_the_minimum_opens_it_if_the_rate_is_too_high(
    clock: FakeClock,
) -> None:
    breaker = CircuitBreaker(min_calls=3, clock=clock)
    fail(breaker, 2)
    breaker.call(ok)
    assert breaker.state is State.OPEN


def test_one_failure_in_a_thousand_stays_closed_over_100_000_calls() -> None:
    breaker = CircuitBreaker(failure_rate=0.5, min_calls=10)
    for number in range(100_000):
        if number % 1000 == 999:
            fail(breaker)
        else:
            breaker.call(ok)
    assert breaker.state is State.CLOSED
    assert breaker.snapshot().failures <= 1


def test_failures_on_different_days_do_not_add_up(clock: FakeClock) -> None:
    breaker = CircuitBreaker(min_calls=2, window=TimeWindow(60), clock=clock)
    for _ in range(10):
        fail(breaker)
        clock.advance(86_400)
    assert breaker.state is State.CLOSED


def test_slow_successes_open_it(clock: FakeClock) -> None:
    breaker = CircuitBreaker(min_calls=4, slow_call_duration=1.0, slow_call_rate=0.5, clock=clock)
    for duration in (0.1, 0.99, 1.0, 5.0):
        assert breaker.state is State.CLOSED
        breaker.call(clock.sleep, duration)
    assert breaker.state is State.OPEN


def test_durations_are_not_looked_at_unless_asked(clock: FakeClock) -> None:
    breaker = CircuitBreaker(min_calls=1, clock=clock)
    breaker.call(clock.sleep, 1e6)
    assert breaker.state is State.CLOSED
    assert breaker.snapshot().slow == 0


def test_a_result_can_be_a_failure(clock: FakeClock) -> None:
    breaker = CircuitBreaker(
        min_calls=2, failed_result=lambda status: status >= 500, clock=clock, failure_rate=1.0
    )
    assert breaker.call(lambda: 503) == 503
    assert breaker.call(lambda: 503) == 503
    assert breaker.state is State.OPEN


def test_a_truthy_answer_of_the_result_predicate_counts_once(clock: FakeClock) -> None:
    breaker = CircuitBreaker(failed_result=lambda errors: errors, clock=clock)  # type: ignore[return-value,unused-ignore]
    breaker.call(lambda: ["one", "two"])
    assert breaker.snapshot().failures == 1


def test_a_result_predicate_that_raises_counts_like_a_call_that_raises(clock: FakeClock) -> None:
    breaker = CircuitBreaker(
        min_calls=1, failed_result=lambda result: result.status > 500, clock=clock
    )
    with pytest.raises(AttributeError):
        breaker.call(ok)
    assert breaker.state is State.OPEN


# ----- what says nothing ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [ValueError("bad input"), KeyboardInterrupt(), SystemExit(), GeneratorExit(), CancelledError()],
    ids=lambda error: type(error).__name__,
)
def test_ignored_exceptions_cancellations_and_base_exceptions_count_neither_way(
    clock: FakeClock, error: BaseException
) -> None:
    breaker = CircuitBreaker(min_calls=1, ignore=(ValueError,), clock=clock)

    def raises() -> None:
        raise error

    with pytest.raises(type(error)):
        breaker.call(raises)
    assert breaker.snapshot().calls == 0
    assert breaker.state is State.CLOSED


def test_exceptions_that_are_not_among_those_that_count_say_nothing(clock: FakeClock) -> None:
    breaker = CircuitBreaker(min_calls=1, counts=(ConnectionError, TimeoutError), clock=clock)
    with pytest.raises(ZeroDivisionError):
        breaker.call(lambda: 1 / 0)
    assert breaker.snapshot().calls == 0

    def refused() -> None:
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        breaker.call(refused)
    assert breaker.state is State.OPEN


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, CancelledError])
def test_a_probe_that_says_nothing_gives_its_permit_to_the_next(
    clock: FakeClock, error: type[BaseException]
) -> None:
    breaker = open_breaker(clock, ignore=(KeyError,))
    clock.advance(30)

    def raises() -> None:
        raise error

    for _ in range(5):
        with pytest.raises(error):
            breaker.call(raises)
        assert breaker.state is State.HALF_OPEN
    assert breaker.call(ok) == "ok"
    assert breaker.state is State.CLOSED


# ----- open -------------------------------------------------------------------------------------


def test_an_open_circuit_refuses_without_touching_the_backend(clock: FakeClock) -> None:
    breaker = open_breaker(clock, open_for=30.0, name="payments")
    touched = []
    clock.advance(12.5)
    with pytest.raises(CircuitOpenError) as refused:
        breaker.call(touched.append, 1)
    assert touched == []
    assert refused.value.retry_after == 17.5
    assert refused.value.state is State.OPEN
    assert str(refused.value) == "circuit 'payments' is open; retry after 17.5 s"


def test_a_refusal_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(CircuitOpenError(2.5, State.OPEN, "payments")))
    assert (error.retry_after, error.state, error.name) == (2.5, State.OPEN, "payments")


def test_it_stays_open_for_the_open_period_and_no_longer(clock: FakeClock) -> None:
    breaker = open_breaker(clock, open_for=30.0)
    clock.advance(29.999)
    with pytest.raises(CircuitOpenError):
        breaker.call(ok)
    clock.advance(0.001)
    assert breaker.call(ok) == "ok"
    assert breaker.state is State.CLOSED


def test_the_open_period_may_grow_with_each_opening_in_a_row(clock: FakeClock) -> None:
    breaker = open_breaker(clock, open_for=lambda openings: 2.0**openings)
    for period in (2.0, 4.0, 8.0):
        assert breaker.snapshot().retry_after == period
        clock.advance(period)
        fail(breaker)
    assert breaker.snapshot().openings == 4
    clock.advance(16.0)
    breaker.call(ok)
    fail(breaker, 2)
    assert breaker.snapshot().retry_after == 2.0, "closing starts the count again"


@pytest.mark.parametrize("broken", [lambda n: 1 / (n - 2), lambda n: 5.0 if n == 1 else -1.0])
def test_an_open_period_that_fails_later_is_logged_and_the_last_one_kept(
    clock: FakeClock, broken: Callable[[int], float], caplog: pytest.LogCaptureFixture
) -> None:
    breaker = open_breaker(clock, open_for=lambda n: 5.0 if n == 1 else broken(n))
    clock.advance(5)
    fail(breaker)
    assert breaker.state is State.OPEN
    assert breaker.snapshot().retry_after == 5.0
    assert "open_for(2) failed" in caplog.text


def test_a_jump_of_the_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert inspect.signature(CircuitBreaker).parameters["clock"].default is time.monotonic
    breaker = CircuitBreaker(min_calls=1, open_for=1000.0)
    fail(breaker)
    actual = time.time()

    class Shifted(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
            return dt.datetime.fromtimestamp(time.time(), tz)

    for jump in (3600.0, -3600.0):
        monkeypatch.setattr(time, "time", lambda jump=jump: actual + jump)
        monkeypatch.setattr(time, "time_ns", lambda jump=jump: int((actual + jump) * 1e9))
        monkeypatch.setattr(dt, "datetime", Shifted)
        with pytest.raises(CircuitOpenError) as refused:
            breaker.call(ok)
        assert refused.value.retry_after == pytest.approx(1000.0, abs=60.0)


# ----- half-open --------------------------------------------------------------------------------


def test_a_failing_probe_opens_it_again(clock: FakeClock) -> None:
    breaker = open_breaker(clock)
    clock.advance(30)
    fail(breaker)
    assert breaker.state is State.OPEN
    assert breaker.snapshot().retry_after == 30.0


def test_it_closes_after_as_many_probes_as_there_are_permits(clock: FakeClock) -> None:
    breaker = open_breaker(clock, half_open_permits=3)
    clock.advance(30)
    for _ in range(2):
        breaker.call(ok)
        assert breaker.state is State.HALF_OPEN
    breaker.call(ok)
    assert breaker.state is State.CLOSED
    assert breaker.snapshot().calls == 0, "a closed circuit starts with an empty window"


def test_probes_are_judged_by_the_same_rate_and_as_soon_as_it_is_certain(clock: FakeClock) -> None:
    breaker = open_breaker(clock, half_open_permits=4, failure_rate=0.5)
    clock.advance(30)
    fail(breaker)
    assert breaker.state is State.HALF_OPEN
    fail(breaker)
    assert breaker.state is State.OPEN


def test_a_slow_probe_opens_it_again(clock: FakeClock) -> None:
    breaker = open_breaker(clock, slow_call_duration=1.0)
    clock.advance(30)
    breaker.call(clock.sleep, 1.0)
    assert breaker.state is State.OPEN


def test_while_probes_are_under_way_others_learn_when_to_come_back(clock: FakeClock) -> None:
    breaker = open_breaker(clock, half_open_timeout=8.0)
    clock.advance(30)
    with breaker.guard():
        clock.advance(3)
        with pytest.raises(CircuitOpenError) as refused:
            breaker.call(ok)
        assert refused.value.state is State.HALF_OPEN
        assert refused.value.retry_after == 5.0
        assert breaker.snapshot().probes == 1


def test_a_probe_that_never_returns_counts_as_failed_after_the_timeout(clock: FakeClock) -> None:
    breaker = open_breaker(clock, half_open_timeout=8.0)
    clock.advance(30)
    hung = breaker.guard()
    hung.__enter__()
    clock.advance(8)
    with pytest.raises(CircuitOpenError) as refused:
        breaker.call(ok)
    assert refused.value.state is State.OPEN
    clock.advance(30)
    assert breaker.call(ok) == "ok"
    hung.__exit__(BackendDownError, BackendDownError(), None)
    assert breaker.state is State.CLOSED, "its late failure changes nothing"


def test_a_hung_probe_among_several_does_not_decide_alone(clock: FakeClock) -> None:
    breaker = open_breaker(clock, half_open_timeout=8.0, half_open_permits=3)
    clock.advance(30)
    hung = breaker.guard()
    hung.__enter__()
    clock.advance(8)
    breaker.call(ok)
    hung.__exit__(None, None, None)
    assert breaker.snapshot().calls == 2, "it counts as the failure that it was taken for"
    breaker.call(ok)
    assert breaker.state is State.CLOSED


def test_a_quiet_half_open_circuit_waits_for_the_next_probe_without_timing_out(
    clock: FakeClock,
) -> None:
    breaker = open_breaker(clock, half_open_permits=2)
    clock.advance(30)
    breaker.call(ok)
    clock.advance(86_400)
    breaker.call(ok)
    assert breaker.state is State.CLOSED


# ----- generations ------------------------------------------------------------------------------


def test_a_success_that_began_before_the_outage_does_not_close_a_half_open_circuit(
    clock: FakeClock,
) -> None:
    breaker = CircuitBreaker(min_calls=2, clock=clock)
    with breaker.guard():
        fail(breaker, 2)
        clock.advance(30)
        probe = breaker.guard()
        probe.__enter__()
    assert breaker.state is State.HALF_OPEN
    probe.__exit__(BackendDownError, BackendDownError(), None)
    assert breaker.state is State.OPEN


def test_a_failure_that_began_before_the_opening_does_not_prolong_it(clock: FakeClock) -> None:
    breaker = CircuitBreaker(min_calls=2, clock=clock)
    late = breaker.guard()
    late.__enter__()
    fail(breaker, 2)
    before = breaker.snapshot()
    clock.advance(10)
    late.__exit__(BackendDownError, BackendDownError(), None)
    after = breaker.snapshot()
    assert (after.since, after.openings) == (before.since, before.openings)
    assert after.retry_after == 20.0


def test_a_late_failure_does_not_ask_for_another_open_period(clock: FakeClock) -> None:
    asked: list[int] = []

    def open_for(openings: int) -> float:
        asked.append(openings)
        return 30.0

    breaker = CircuitBreaker(min_calls=2, open_for=open_for, clock=clock)
    late = breaker.guard()
    late.__enter__()
    fail(breaker, 2)
    late.__exit__(BackendDownError, BackendDownError(), None)
    assert asked == [1, 1], "once when it was made, once when it opened"


def test_a_verdict_that_somebody_overtook_is_dropped(clock: FakeClock) -> None:
    def overtake(openings: int) -> float:
        if clock() > 1000:
            breaker.force_open()
        return 30.0

    breaker = CircuitBreaker(min_calls=1, open_for=overtake, clock=clock)
    clock.advance(1)
    fail(breaker)
    assert breaker.state is State.FORCED_OPEN


def test_a_result_from_before_a_reset_is_dropped(clock: FakeClock) -> None:
    breaker = CircuitBreaker(min_calls=1, clock=clock)
    late = breaker.guard()
    late.__enter__()
    breaker.reset()
    late.__exit__(BackendDownError, BackendDownError(), None)
    assert breaker.snapshot().calls == 0


# ----- steering ---------------------------------------------------------------------------------


def test_a_forced_open_circuit_refuses_for_ever_and_knows_no_time(clock: FakeClock) -> None:
    breaker = CircuitBreaker(clock=clock)
    breaker.force_open()
    clock.advance(1e9)
    with pytest.raises(CircuitOpenError) as refused:
        breaker.call(ok)
    assert refused.value.retry_after is None
    assert refused.value.state is State.FORCED_OPEN
    assert str(refused.value) == "circuit is forced open until it is reset"


def test_a_disabled_breaker_lets_everything_pass_and_counts_nothing(clock: FakeClock) -> None:
    breaker = open_breaker(clock)
    breaker.disable()
    fail(breaker, 50)
    assert breaker.call(ok) == "ok"
    assert breaker.state is State.DISABLED
    assert breaker.snapshot().calls == 0


@pytest.mark.parametrize("steer", ["force_open", "disable"])
def test_reset_closes_it_from_anywhere_with_an_empty_window(clock: FakeClock, steer: str) -> None:
    breaker = open_breaker(clock)
    getattr(breaker, steer)()
    breaker.reset()
    snapshot = breaker.snapshot()
    assert (snapshot.state, snapshot.calls, snapshot.openings) == (State.CLOSED, 0, 0)


# ----- looking ----------------------------------------------------------------------------------


def test_a_snapshot_tells_rates_and_totals(clock: FakeClock) -> None:
    breaker = CircuitBreaker(slow_call_duration=1.0, clock=clock, name="payments")
    fail(breaker)
    breaker.call(ok)
    breaker.call(ok)
    breaker.call(clock.sleep, 2.0)
    snapshot = breaker.snapshot()
    assert (snapshot.name, snapshot.state, snapshot.since) == ("payments", State.CLOSED, 1000.0)
    assert (snapshot.calls, snapshot.failures, snapshot.slow) == (4, 1, 1)
    assert (snapshot.failure_rate, snapshot.slow_call_rate) == (0.25, 0.25)
    assert snapshot.retry_after == 0.0


def test_a_snapshot_of_nothing_has_rates_of_zero() -> None:
    snapshot = CircuitBreaker().snapshot()
    assert (snapshot.failure_rate, snapshot.slow_call_rate) == (0.0, 0.0)


def test_a_snapshot_forgets_what_has_left_the_time_window(clock: FakeClock) -> None:
    breaker = CircuitBreaker(window=TimeWindow(10), clock=clock)
    fail(breaker)
    clock.advance(11)
    assert breaker.snapshot().calls == 0


def test_looking_at_a_due_circuit_does_not_half_open_it(clock: FakeClock) -> None:
    breaker = open_breaker(clock)
    clock.advance(31)
    assert breaker.snapshot().retry_after == 0.0
    assert breaker.state is State.OPEN


# ----- listeners --------------------------------------------------------------------------------


def test_listeners_hear_every_transition_in_order_with_its_reason(clock: FakeClock) -> None:
    heard: list[Transition] = []
    breaker = open_breaker(clock, listeners=[heard.append], name="payments")
    clock.advance(30)
    breaker.call(ok)
    breaker.force_open()
    breaker.disable()
    breaker.reset()
    assert [(t.before, t.after) for t in heard] == [
        (State.CLOSED, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.CLOSED),
        (State.CLOSED, State.FORCED_OPEN),
        (State.FORCED_OPEN, State.DISABLED),
        (State.DISABLED, State.CLOSED),
    ]
    assert [t.at for t in heard] == [1000.0, 1030.0, 1030.0, 1030.0, 1030.0, 1030.0]
    assert heard[0].reason == "2 of 2 calls failed"
    assert {t.name for t in heard} == {"payments"}


def test_a_reset_of_a_closed_breaker_is_no_transition() -> None:
    heard: list[Transition] = []
    CircuitBreaker(listeners=[heard.append]).reset()
    assert heard == []


def test_a_failing_listener_is_logged_and_stops_neither_the_caller_nor_the_others(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Transition] = []

    def broken(transition: Transition) -> None:
        raise RuntimeError("pager is down")

    open_breaker(clock, listeners=[broken, heard.append])
    assert len(heard) == 1
    assert "pager is down" in caplog.text


def test_a_listener_may_steer_the_breaker_and_all_still_hear_in_order(clock: FakeClock) -> None:
    heard: list[State] = []

    def reset_at_once(transition: Transition) -> None:
        if transition.after is State.OPEN:
            breaker.reset()

    breaker = CircuitBreaker(
        min_calls=1, clock=clock, listeners=[reset_at_once, lambda t: heard.append(t.after)]
    )
    fail(breaker)
    assert breaker.state is State.CLOSED
    assert heard == [State.OPEN, State.CLOSED]


# ----- settings ---------------------------------------------------------------------------------


async def awaits(transition: Transition) -> None: ...


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"failure_rate": 0.0}, "failure_rate"),
        ({"failure_rate": 1.01}, "failure_rate"),
        ({"failure_rate": math.nan}, "failure_rate"),
        ({"slow_call_rate": 0.0}, "slow_call_rate"),
        ({"slow_call_rate": 2.0}, "slow_call_rate"),
        ({"slow_call_duration": 0.0}, "slow_call_duration"),
        ({"slow_call_duration": math.inf}, "slow_call_duration"),
        ({"min_calls": 0}, "min_calls"),
        ({"min_calls": 11, "window": CallWindow(10)}, "min_calls"),
        ({"open_for": 0.0}, "open_for"),
        ({"open_for": math.inf}, "open_for"),
        ({"open_for": lambda openings: -1.0}, "open_for"),
        ({"half_open_permits": 0}, "half_open_permits"),
        ({"half_open_timeout": 0.0}, "half_open_timeout"),
        ({"half_open_timeout": math.inf}, "half_open_timeout"),
        ({"counts": ValueError}, "counts"),
        ({"counts": (BaseException,)}, "counts"),
        ({"ignore": [KeyError]}, "ignore"),
        ({"ignore": ("KeyError",)}, "ignore"),
        ({"listeners": [awaits]}, "listeners"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(
    settings: dict[str, object], names: str
) -> None:
    with pytest.raises(ValueError, match=f"^{names} "):
        CircuitBreaker(**settings)  # type: ignore[arg-type]
