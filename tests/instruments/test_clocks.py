"""The clock that moves only when told to."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest

from companion.instruments import FakeClock


def test_it_stands_still_until_it_is_advanced() -> None:
    clock = FakeClock(5.0)
    assert (clock(), clock()) == (5.0, 5.0)
    clock.advance(2.5)
    assert clock() == 7.5
    assert repr(clock) == "FakeClock(7.5)"


def test_sleeping_is_advancing() -> None:
    clock = FakeClock()
    clock.sleep(3600)
    assert clock() == 3600.0


@pytest.mark.parametrize("seconds", [-0.001, math.inf, math.nan])
def test_it_moves_forward_only_and_by_finite_steps(seconds: float) -> None:
    clock = FakeClock()
    for move in (clock.advance, clock.sleep, lambda s: asyncio.run(clock.asleep(s))):
        with pytest.raises(ValueError, match="forward"):
            move(seconds)
    assert clock() == 0.0


@pytest.mark.parametrize("start", [math.inf, math.nan])
def test_it_starts_at_a_finite_time(start: float) -> None:
    with pytest.raises(ValueError, match="starts"):
        FakeClock(start)


def test_async_sleepers_wake_in_order_of_time_and_then_of_arrival() -> None:
    clock = FakeClock()
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.asleep(seconds)
        woken.append(name)

    async def scenario() -> None:
        tasks = [
            asyncio.create_task(sleeper(name, seconds))
            for name, seconds in [("late", 9), ("second", 2), ("also second", 2), ("first", 1)]
        ]
        await asyncio.sleep(0)
        assert clock.sleepers == 4
        clock.advance(5)
        await asyncio.wait(tasks, timeout=0)
        assert woken == ["first", "second", "also second"]
        clock.advance(4)
        await asyncio.gather(*tasks)

    asyncio.run(scenario())
    assert woken[-1] == "late"
    assert clock.sleepers == 0


def test_sleeping_for_nothing_gives_way_once_and_passes_no_time() -> None:
    clock = FakeClock()
    turns: list[str] = []

    async def other() -> None:
        turns.append("other")

    async def scenario() -> None:
        task = asyncio.create_task(other())
        await clock.asleep(0)
        turns.append("sleeper")
        await task

    asyncio.run(scenario())
    assert turns == ["other", "sleeper"]
    assert clock() == 0.0


def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = FakeClock()

    async def scenario() -> None:
        task = asyncio.create_task(clock.asleep(1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert clock.sleepers == 0
        clock.advance(2)
        await asyncio.sleep(0)

    asyncio.run(scenario())


def test_a_sleeper_cancelled_in_the_moment_of_waking_stays_cancelled() -> None:
    clock = FakeClock()

    async def scenario() -> None:
        task = asyncio.create_task(clock.asleep(1))
        await asyncio.sleep(0)
        clock.advance(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_a_sleeper_whose_event_loop_is_closed_does_not_stop_the_clock() -> None:
    clock = FakeClock()
    loop = asyncio.new_event_loop()
    abandoned = clock.asleep(1)

    async def start() -> None:
        abandoned.send(None)

    loop.run_until_complete(start())
    loop.close()
    clock.advance(2)
    assert clock() == 2.0
    abandoned.close()


def test_another_thread_can_wake_a_sleeper() -> None:
    clock = FakeClock()

    async def scenario() -> float:
        task = asyncio.create_task(clock.asleep(10))
        await asyncio.sleep(0)
        await asyncio.get_running_loop().run_in_executor(None, clock.advance, 10)
        await asyncio.wait_for(task, timeout=30)
        return clock()

    assert asyncio.run(scenario()) == 10.0


def test_advances_from_many_threads_all_count() -> None:
    clock = FakeClock()
    threads = [
        threading.Thread(target=lambda: [clock.advance(1) for _ in range(500)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock() == 4000.0


def test_run_jumps_from_wake_up_to_wake_up() -> None:
    clock = FakeClock()
    seen: list[tuple[str, float]] = []

    async def ticks(name: str, every: float) -> None:
        for _ in range(3):
            await clock.asleep(every)
            seen.append((name, clock()))

    async def both() -> str:
        await asyncio.gather(ticks("a", 2.0), ticks("b", 3.0))
        return "done"

    assert asyncio.run(clock.run(both())) == "done"
    assert seen == [("a", 2.0), ("b", 3.0), ("a", 4.0), ("b", 6.0), ("a", 6.0), ("b", 9.0)]


def test_run_passes_over_sleepers_that_were_cancelled() -> None:
    clock = FakeClock()

    async def scenario() -> None:
        task = asyncio.create_task(clock.asleep(1))
        await clock.asleep(0.5)
        task.cancel()
        await clock.asleep(10)

    asyncio.run(clock.run(scenario()))
    assert clock() == 10.5


def test_run_hands_on_what_the_coroutine_raises() -> None:
    async def fails() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(FakeClock().run(fails()))
