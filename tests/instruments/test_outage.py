"""Simulated traffic: callers overlap, time is virtual, and everything is counted."""

import numpy as np
import pytest

from companion.instruments.clocks import FakeClock
from companion.instruments.outage import FlakyBackend, play


class Unguarded:
    """Passes every call on."""

    state = "closed"

    async def acall(self, function):
        return await function()


class OneAtATime:
    """Refuses while a call is under way."""

    state = "free"

    async def acall(self, function):
        if self.state == "busy":
            raise RuntimeError("busy")
        self.state = "busy"
        try:
            return await function()
        finally:
            self.state = "free"


def run(guard, *, rate=10, seconds=10, **backend):
    clock = FakeClock(1_000.0)
    flaky = FlakyBackend(clock, np.random.default_rng(1), **backend)
    return play(guard, flaky, clock, rate=rate, seconds=seconds)


def test_a_healthy_backend_serves_every_call():
    seen = run(Unguarded(), latency=0.05)
    assert (seen.count("served"), len(seen.began)) == (100, 100)
    assert seen.until == 10


def test_calls_overlap_as_in_life():
    seen = run(OneAtATime(), latency=0.35)
    assert seen.count("served") == 25, "one call in four finds the backend free"
    assert seen.count("refused") == 75
    assert len(seen.reached) == 25


def test_during_an_outage_calls_fail_after_the_time_they_hang():
    clock = FakeClock()
    flaky = FlakyBackend(clock, np.random.default_rng(1), outages=[(1_002, 1_004)], hang=30.0)
    clock.advance(1_000)
    seen = play(Unguarded(), flaky, clock, rate=10, seconds=10)
    assert seen.count("failed") == 20
    assert seen.until == pytest.approx(33.9), "the last call of the outage hangs until then"


def test_sporadic_errors_come_at_their_rate():
    seen = run(Unguarded(), rate=100, seconds=100, error_rate=0.1)
    assert 900 < seen.count("failed") < 1_100


def test_the_same_seed_gives_the_same_traffic():
    assert run(Unguarded(), error_rate=0.3).outcomes == run(Unguarded(), error_rate=0.3).outcomes


def test_states_and_reached_calls_are_read_by_time():
    seen = run(OneAtATime(), rate=1, seconds=4, latency=0.25)
    assert seen.states[:3] == ((0.0, "free"), (0.0, "busy"), (0.25, "free"))
    assert seen.time_in("busy") == pytest.approx(1.0)
    assert seen.time_in("busy", 1.0, 2.0) == pytest.approx(0.25)
    assert seen.reached_between(1, 3) == 2


def test_times_count_from_the_start_of_the_traffic():
    assert run(Unguarded()).reached[0] == 0.0


@pytest.mark.parametrize("settings", [{"rate": 0}, {"seconds": -1}])
def test_traffic_needs_a_rate_and_a_length(settings):
    with pytest.raises(ValueError, match="must be positive"):
        run(Unguarded(), **settings)


def test_an_error_rate_is_a_share():
    with pytest.raises(ValueError, match="from 0 to 1"):
        run(Unguarded(), error_rate=2)
