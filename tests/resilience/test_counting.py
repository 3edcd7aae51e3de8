"""The memorised breaker must keep the faults that it is kept for."""

import asyncio
from datetime import datetime, timedelta

import pytest

from companion.resilience.counting import CountingBreaker

NEW_YEAR = datetime(2026, 1, 1)


class Wall:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return NEW_YEAR + timedelta(seconds=self.seconds)


def fail():
    raise ConnectionError


def opened(wall, failures=5):
    breaker = CountingBreaker(clock=wall)
    for _ in range(failures):
        with pytest.raises(ConnectionError):
            breaker.call(fail)
    return breaker


def test_it_opens_at_the_fifth_failure_however_many_successes_lie_between():
    breaker = opened(Wall(), failures=4)
    for _ in range(1000):
        breaker.call(int)
    assert breaker.state == "closed"
    with pytest.raises(ConnectionError):
        breaker.call(fail)
    assert breaker.state == "open"


def test_open_it_refuses_until_the_wall_clock_has_moved_on():
    wall = Wall()
    breaker = opened(wall)
    wall.seconds = 60
    with pytest.raises(RuntimeError, match="circuit is open"):
        breaker.call(int)
    wall.seconds = 61
    assert breaker.call(int) == 0
    assert breaker.state == "closed"


def test_a_failure_in_half_open_opens_it_again():
    wall = Wall()
    breaker = opened(wall)
    wall.seconds = 61
    with pytest.raises(ConnectionError):
        breaker.call(fail)
    assert breaker.state == "open"


def test_coroutines_are_counted_when_awaited_through_acall():
    async def refused():
        raise ConnectionError

    async def served():
        return "score"

    async def scenario():
        breaker = CountingBreaker(threshold=1)
        assert await breaker.acall(served) == "score"
        with pytest.raises(ConnectionError):
            await breaker.acall(refused)
        return breaker.state

    assert asyncio.run(scenario()) == "open"
