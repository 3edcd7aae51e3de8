"""asyncio whose clock jumps."""

import asyncio
import threading
import time

import pytest

from companion.instruments.virtual_time import run_in_virtual_time, virtual_now


def test_a_day_of_sleeping_passes_at_once():
    async def sleep():
        await asyncio.sleep(86_400)
        return virtual_now()

    begun = time.monotonic()
    assert run_in_virtual_time(sleep()) == pytest.approx(86_400)
    assert time.monotonic() - begun < 60  # a day would have been longer


def test_timeouts_are_virtual_too():
    async def waits_for_ever():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        return virtual_now()

    assert run_in_virtual_time(waits_for_ever()) == pytest.approx(3600)


def test_tasks_wake_at_their_own_times_in_order():
    seen = []

    async def wake(after):
        await asyncio.sleep(after)
        seen.append((virtual_now(), after))

    async def run():
        await asyncio.gather(*map(wake, (30.5, 0.25, 7.0)))

    run_in_virtual_time(run())
    assert seen == [(0.25, 0.25), (7.0, 7.0), (30.5, 30.5)]


def test_without_a_timer_it_waits_for_other_threads():
    async def run():
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        threading.Thread(target=loop.call_soon_threadsafe, args=[heard.set]).start()
        await heard.wait()
        return virtual_now()

    assert run_in_virtual_time(run()) == 0


def test_it_runs_beside_a_loop_that_runs_already():
    async def outside():
        return run_in_virtual_time(inside())

    async def inside():
        return "here"

    assert asyncio.run(outside()) == "here"


@pytest.mark.parametrize("error", [LookupError, SystemExit])
def test_errors_come_out(error):
    async def fails():
        raise error("no")

    with pytest.raises(error):
        run_in_virtual_time(fails())
