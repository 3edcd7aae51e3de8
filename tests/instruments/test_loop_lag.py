"""The event-loop-lag meter, in virtual time: blocking the loop is advancing the clock."""

from __future__ import annotations

import asyncio

import pytest

from companion.instruments import FakeClock, LoopLag


def test_a_loop_that_is_never_blocked_has_no_lag() -> None:
    clock = FakeClock()

    async def scenario() -> LoopLag:
        async with LoopLag(0.5, clock=clock, sleep=clock.asleep) as lag:
            await clock.asleep(5.0)
        return lag

    lag = asyncio.run(clock.run(scenario()))
    assert lag.worst == 0.0
    assert len(lag.samples) >= 9


def test_what_blocks_the_loop_shows_as_lag() -> None:
    clock = FakeClock()

    async def scenario() -> LoopLag:
        async with LoopLag(0.5, clock=clock, sleep=clock.asleep) as lag:
            await clock.asleep(0.75)
            clock.advance(3.0)
            await clock.asleep(1.75)
        return lag

    lag = asyncio.run(clock.run(scenario()))
    assert lag.worst == 2.75, "the tick due at 1.0 ran at 3.75"
    assert lag.percentile(100) == 2.75
    assert lag.percentile(0) == 0.0


def test_blocking_until_the_very_end_is_seen_too() -> None:
    clock = FakeClock()

    async def scenario() -> LoopLag:
        async with LoopLag(0.5, clock=clock, sleep=clock.asleep) as lag:
            await asyncio.sleep(0)
            clock.advance(2.0)
        return lag

    assert asyncio.run(clock.run(scenario())).worst == 1.5


def test_an_exception_in_the_block_ends_the_measuring_at_once() -> None:
    clock = FakeClock()

    async def scenario() -> None:
        async with LoopLag(0.5, clock=clock, sleep=clock.asleep):
            raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(scenario())
    assert clock.sleepers == 0


def test_it_measures_a_real_loop() -> None:
    async def scenario() -> LoopLag:
        async with LoopLag() as lag:
            await asyncio.sleep(0)
        return lag

    lag = asyncio.run(scenario())
    assert len(lag.samples) == 1
    assert lag.worst >= 0.0


def test_before_the_first_tick_there_is_nothing_to_sum_up() -> None:
    lag = LoopLag()
    assert lag.worst == 0.0
    with pytest.raises(ValueError, match="sample"):
        lag.percentile(50)


def test_an_interval_must_be_positive() -> None:
    with pytest.raises(ValueError, match="interval"):
        LoopLag(0.0)
