"""The rolling windows against a plain list of everything that ever happened."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.resilience import CallWindow, TimeWindow

outcomes = st.tuples(st.booleans(), st.booleans())


@given(size=st.integers(1, 12), calls=st.lists(outcomes, max_size=60))
def test_a_call_window_holds_exactly_the_last_calls(
    size: int, calls: list[tuple[bool, bool]]
) -> None:
    counter = CallWindow(size).counter()
    for seen, (failed, slow) in enumerate(calls, start=1):
        counter.record(failed, slow, now=0.0)
        last = calls[max(0, seen - size) : seen]
        assert counter.calls == len(last)
        assert counter.failures == sum(failed for failed, _ in last)
        assert counter.slow == sum(slow for _, slow in last)


@given(
    buckets=st.integers(1, 6),
    calls=st.lists(st.tuples(st.integers(0, 12), outcomes), max_size=60),
)
def test_a_time_window_holds_the_current_bucket_and_those_before_it(
    buckets: int, calls: list[tuple[int, tuple[bool, bool]]]
) -> None:
    counter = TimeWindow(seconds=buckets * 2.0, buckets=buckets).counter()
    now, history = 0.0, []
    for pause, (failed, slow) in calls:
        now += pause / 2
        counter.record(failed, slow, now)
        history.append((now, failed, slow))
        kept = [event for event in history if event[0] // 2 > now // 2 - buckets]
        assert counter.calls == len(kept)
        assert counter.failures == sum(failed for _, failed, _ in kept)
        assert counter.slow == sum(slow for _, _, slow in kept)


def test_a_time_window_empties_as_time_passes_without_calls() -> None:
    counter = TimeWindow(seconds=10, buckets=10).counter()
    counter.record(True, True, now=100.0)
    counter.roll(109.9)
    assert (counter.calls, counter.failures, counter.slow) == (1, 1, 1)
    counter.roll(110.0)
    assert (counter.calls, counter.failures, counter.slow) == (0, 0, 0)


def test_a_time_window_counts_a_slightly_older_reading_of_the_clock_as_current() -> None:
    counter = TimeWindow(seconds=10, buckets=10).counter()
    counter.record(False, False, now=5.01)
    counter.record(True, False, now=4.99)
    counter.roll(4.0)
    assert (counter.calls, counter.failures) == (2, 1)


def test_rolling_a_call_window_changes_nothing() -> None:
    counter = CallWindow(3).counter()
    counter.record(True, False, now=0.0)
    counter.roll(1e9)
    assert (counter.calls, counter.failures) == (1, 1)


def test_two_counters_of_one_window_share_nothing() -> None:
    window = CallWindow(3)
    one, other = window.counter(), window.counter()
    one.record(True, True, now=0.0)
    assert other.calls == 0


@pytest.mark.parametrize("size", [0, -1])
def test_a_call_window_without_room_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"size={size}"):
        CallWindow(size)


@pytest.mark.parametrize("seconds", [0, -1.0, math.inf, math.nan])
def test_a_time_window_without_a_positive_length_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds="):
        TimeWindow(seconds)


def test_a_time_window_without_buckets_is_refused() -> None:
    with pytest.raises(ValueError, match="buckets=0"):
        TimeWindow(10, buckets=0)
