"""What every algorithm promises, and each against a slow model that remembers everything."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.instruments import FakeClock
from companion.resilience.limiting import (
    GCRA,
    Decision,
    FixedWindow,
    InvalidCostError,
    Limit,
    MemoryStore,
    RateLimiter,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
)

ALGORITHMS = [FixedWindow, SlidingLog, SlidingCounter, TokenBucket, GCRA]
every_algorithm = pytest.mark.parametrize("make", ALGORITHMS, ids=lambda a: a.__name__)

TEN_A_SECOND = Limit(rate=10, burst=5)


class Case:
    """A limiter at a time that is the beginning of a window."""

    def __init__(self, make, limit=TEN_A_SECOND, start=1000.0):
        self.clock = FakeClock(start)
        self.limiter = RateLimiter(make(limit), MemoryStore(self.clock))

    def hit(self, cost=1.0, key="k") -> Decision:
        return self.limiter.hit(key, cost)


# ----- the models: all hits that were allowed, and exact fractions ---------------------------

Hit = tuple[Fraction, Fraction]  # time, cost
Used = Callable[[list[Hit], Fraction, Fraction, Fraction], Fraction]


def used_in_fixed_window(hits, now, rate, burst):
    window = burst / rate
    return sum((cost for time, cost in hits if time // window == now // window), Fraction(0))


def used_in_sliding_log(hits, now, rate, burst):
    return sum((cost for time, cost in hits if now - time < burst / rate), Fraction(0))


def used_in_sliding_counter(hits, now, rate, burst):
    window = burst / rate
    number = now // window
    current = sum((cost for time, cost in hits if time // window == number), Fraction(0))
    previous = sum((cost for time, cost in hits if time // window == number - 1), Fraction(0))
    return previous * ((number + 1) * window - now) / window + current


def used_of_bucket(hits, now, rate, burst):
    """Everything since the beginning, refilled hit by hit."""
    tokens, then = burst, Fraction(0)
    for time, cost in hits:
        tokens = min(burst, tokens + (time - then) * rate) - cost
        then = time
    return burst - min(burst, tokens + (now - then) * rate)


MODELS: dict[type, Used] = {
    FixedWindow: used_in_fixed_window,
    SlidingLog: used_in_sliding_log,
    SlidingCounter: used_in_sliding_counter,
    TokenBucket: used_of_bucket,
    GCRA: used_of_bucket,
}

quarters = st.integers(1, 40).map(lambda n: n / 4)
limits = st.builds(Limit, rate=st.sampled_from([0.125, 0.5, 1.0, 4.0, 16.0]), burst=quarters)
# Gaps are sixteenths of a window, costs eighths of the burst, so that ties are common.
traces = st.lists(
    st.tuples(st.sampled_from([0, 0, 0, 1, 2, 5, 8, 16, 17, 40]), st.integers(0, 8)), max_size=40
)


@every_algorithm
@settings(deadline=None, max_examples=80)
@given(limit=limits, trace=traces)
def test_it_decides_as_the_model_that_remembers_everything(make, limit, trace):
    used = MODELS[make]
    rate, burst = Fraction(limit.rate), Fraction(limit.burst)
    clock, accepted, now = FakeClock(), [], Fraction(0)
    limiter = RateLimiter(make(limit), MemoryStore(clock))
    for gap, eighths in trace:
        now += burst / rate * gap / 16
        clock.advance(float(now) - clock())
        cost = burst * eighths / 8
        before = used(accepted, now, rate, burst)
        decision = limiter.hit("k", float(cost))
        assert decision.allowed == (before + cost <= burst)
        if decision.allowed and cost:
            accepted.append((now, cost))
        after = used(accepted, now, rate, burst)
        assert decision.remaining == pytest.approx(float(burst - after), abs=1e-9)
        assert decision.limit == limit.burst

        def used_in(seconds, accepted=accepted, now=now):
            return used(accepted, now + Fraction(seconds), rate, burst)

        # `reset` is the first moment at which nothing is used, `retry_after` at which it fits.
        assert used_in(decision.reset + 1e-9) <= 1e-6
        assert decision.reset == 0 or used_in(decision.reset * 0.999) > 0
        if decision.allowed:
            assert decision.retry_after == 0
        else:
            assert used_in(decision.retry_after + 1e-9) + cost <= burst + Fraction(1, 10**6)
            assert used_in(decision.retry_after * 0.999) + cost > burst


@settings(deadline=None, max_examples=80)
@given(limit=limits, trace=traces)
def test_gcra_and_the_token_bucket_always_decide_alike(limit, trace):
    clock = FakeClock()
    bucket, gcra = (RateLimiter(make(limit), MemoryStore(clock)) for make in (TokenBucket, GCRA))
    for gap, eighths in trace:
        clock.advance(limit.window * gap / 16)
        one, other = (limiter.hit("k", limit.burst * eighths / 8) for limiter in (bucket, gcra))
        assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(other), abs=1e-9)


# ----- the promises --------------------------------------------------------------------------


@every_algorithm
def test_a_burst_is_allowed_and_no_more(make):
    case = Case(make)
    assert [case.hit().allowed for _ in range(7)] == [True] * 5 + [False] * 2


@every_algorithm
def test_keys_have_limits_of_their_own(make):
    case = Case(make)
    for _ in range(5):
        case.hit(key="a")
    assert not case.hit(key="a").allowed
    assert case.hit(key="b").remaining == 4


@every_algorithm
def test_a_refused_hit_costs_nothing(make):
    case, undisturbed = Case(make), Case(make)
    for each in (case, undisturbed):
        each.hit(4.5)
    for _ in range(100):
        assert not case.hit(3.0).allowed
    assert case.hit(0) == undisturbed.hit(0)


@every_algorithm
def test_who_comes_back_after_retry_after_is_allowed(make):
    case = Case(make)
    case.hit(5)
    refused = case.hit(2)
    case.clock.advance(refused.retry_after)
    assert case.hit(2).allowed


@every_algorithm
def test_cost_zero_looks_and_changes_nothing(make):
    case = Case(make)
    case.hit(2)
    looks = [case.hit(0) for _ in range(50)]
    assert set(looks) == {looks[0]}
    assert looks[0].allowed
    assert case.hit().remaining == 2


@every_algorithm
def test_looking_is_allowed_when_nothing_is_left(make):
    case = Case(make)
    case.hit(5)
    assert case.hit(0).allowed
    assert case.hit(0).remaining == 0


@every_algorithm
@pytest.mark.parametrize("cost", [-1, -1e-9, -math.inf, math.nan])
def test_a_cost_that_is_none_is_refused_by_name_and_costs_nothing(make, cost):
    case = Case(make)
    with pytest.raises(InvalidCostError) as caught:
        case.hit(cost)
    assert caught.value.cost is cost
    assert isinstance(caught.value, ValueError)
    assert case.hit(0).remaining == 5


@every_algorithm
@pytest.mark.parametrize("cost", [5.5, 1e9, math.inf])
def test_a_cost_above_the_limit_is_refused_for_ever_and_says_so(make, cost):
    case = Case(make)
    for _ in range(3):
        decision = case.hit(cost)
        assert not decision.allowed
        assert decision.never
        assert decision.retry_after == math.inf
        assert decision.remaining == 5
        case.clock.advance(1000)


@every_algorithm
def test_waiting_is_not_in_vain_for_the_whole_burst(make):
    case = Case(make)
    case.hit()
    decision = case.hit(5)
    assert not decision.never
    case.clock.advance(decision.retry_after)
    assert case.hit(5).allowed


@every_algorithm
def test_fractions_are_kept(make):
    case = Case(make, Limit(rate=0.1, burst=1))
    assert [case.hit(0.1).allowed for _ in range(11)] == [True] * 10 + [False]
    case = Case(make)
    assert case.hit(0.25).remaining == 4.75


@every_algorithm
def test_three_tenths_fit_into_a_limit_of_three_tenths(make):
    case = Case(make, Limit(rate=0.01, burst=0.3))
    assert all(case.hit(0.1).allowed for _ in range(3))


@every_algorithm
def test_dust_cannot_be_taken_out_for_ever(make):
    case = Case(make, Limit(rate=1e-9, burst=1))
    case.hit(1)
    taken = sum(case.hit(1e-7).allowed for _ in range(1000))
    assert taken <= 10, "a millionth of the limit is forgiven once, not each time"


@every_algorithm
def test_millions_of_units_are_counted_to_the_last(make):
    case = Case(make, Limit.per_hour(50_000_000))
    assert case.hit(49_999_999).allowed
    assert case.hit(1).allowed
    assert not case.hit(1).allowed


@every_algorithm
def test_ten_thousand_small_steps_do_not_drift(make):
    case = Case(make, Limit(rate=10_000, burst=10_000), start=2.0**31)
    assert sum(case.hit().allowed for _ in range(10_100)) == 10_000


@every_algorithm
def test_the_long_run_keeps_to_the_rate(make):
    case = Case(make)
    allowed = 0
    for _ in range(100 * 64):
        case.clock.advance(1 / 64)
        allowed += case.hit().allowed
    # Two counters hold back more than they must when somebody always pushes at a small limit.
    at_least = 0.75 if make is SlidingCounter else 0.99
    assert 10 * 100 * at_least <= allowed <= 10 * 100 + 5


@every_algorithm
def test_after_reset_all_is_as_if_nobody_had_called(make):
    case = Case(make)
    case.hit(3)
    case.clock.advance(case.hit(2).reset)
    assert case.hit(0).remaining == 5
    assert case.hit(0).reset == 0


@every_algorithm
def test_a_clock_that_is_set_back_locks_nobody_out_for_longer_than_a_window(make):
    algorithm = make(TEN_A_SECOND)
    state = algorithm.fresh()
    while algorithm.decide(state, 10_000.0, 1.0).allowed:
        pass
    back = 10_000.0 - 3600
    algorithm.decide(state, back, 1.0)
    assert algorithm.decide(state, back + 2 * TEN_A_SECOND.window, 5.0).allowed


@every_algorithm
def test_a_clock_may_begin_below_zero(make):
    case = Case(make, start=-5.0)
    assert [case.hit().allowed for _ in range(6)] == [True] * 5 + [False]


def test_twice_the_limit_passes_around_the_edge_of_a_fixed_window_and_not_through_a_log():
    passed = {}
    for make in (FixedWindow, SlidingLog, SlidingCounter):
        case = Case(make, Limit.per_minute(100), start=59.9)
        before = sum(case.hit().allowed for _ in range(100))
        case.clock.advance(0.2)
        passed[make] = before + sum(case.hit().allowed for _ in range(100))
    assert passed[FixedWindow] == 200
    assert passed[SlidingLog] == 100
    assert passed[SlidingCounter] == 100


# ----- what they are made of -----------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
@pytest.mark.parametrize("name", ["rate", "burst"])
def test_a_limit_refuses_what_is_none_and_names_it(name, value):
    with pytest.raises(ValueError, match=name):
        Limit(**{"rate": 1.0, "burst": 1.0, name: value})


def test_the_window_of_so_many_a_minute_is_a_minute():
    for units in range(1, 1000):
        assert Limit.per_minute(units).window == 60
        assert Limit.per_hour(units).window == 3600
        assert Limit.per_second(units).window == 1


def test_a_smaller_burst_makes_a_shorter_window():
    limit = Limit.per_minute(60, burst=10)
    assert (limit.rate, limit.burst, limit.window) == (1, 10, 10)


def test_limits_are_equal_by_value_whole_or_not():
    assert Limit(10, 5) == Limit(10.0, 5.0)
    assert repr(Limit(10, 5)) == repr(Limit(10.0, 5.0))


def test_a_decision_cannot_be_changed():
    decision = Case(GCRA).hit()
    with pytest.raises(dataclasses.FrozenInstanceError):
        decision.allowed = False


def test_a_limiter_says_what_it_is():
    assert repr(RateLimiter(GCRA(Limit(2, 3)))) == "RateLimiter(GCRA(Limit(rate=2.0, burst=3.0)))"
