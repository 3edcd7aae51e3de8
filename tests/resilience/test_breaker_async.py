"""Coroutines, decorators and guarded blocks."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import warnings
from collections.abc import AsyncIterator, Iterator

import pytest

from companion.instruments import FakeClock
from companion.resilience import CircuitBreaker, CircuitOpenError, State


class BackendDownError(Exception):
    pass


async def fetch(value: int = 1, *, plus: int = 0) -> int:
    await asyncio.sleep(0)
    return value + plus


async def fetch_down() -> None:
    await asyncio.sleep(0)
    raise BackendDownError


def down() -> None:
    raise BackendDownError


def tripped(clock: FakeClock, **settings: object) -> CircuitBreaker:
    breaker = CircuitBreaker(min_calls=1, clock=clock, **settings)  # type: ignore[arg-type]
    with pytest.raises(BackendDownError):
        breaker.call(down)
    return breaker


# ----- acall ------------------------------------------------------------------------------------


def test_acall_returns_what_the_coroutine_returns() -> None:
    assert asyncio.run(CircuitBreaker().acall(fetch, 2, plus=3)) == 5


def test_an_async_function_that_fails_trips_it() -> None:
    breaker = CircuitBreaker(min_calls=3)

    async def scenario() -> None:
        for _ in range(3):
            with pytest.raises(BackendDownError):
                await breaker.acall(fetch_down)
        with pytest.raises(CircuitOpenError):
            await breaker.acall(fetch)

    asyncio.run(scenario())
    assert breaker.state is State.OPEN


def test_sync_and_async_callers_share_one_state() -> None:
    breaker = CircuitBreaker(min_calls=2)
    with pytest.raises(BackendDownError):
        breaker.call(down)
    with pytest.raises(BackendDownError):
        asyncio.run(breaker.acall(fetch_down))
    assert breaker.state is State.OPEN


def test_an_async_result_can_be_a_failure_or_slow() -> None:
    clock = FakeClock()
    breaker = CircuitBreaker(clock=clock, failed_result=lambda r: r == 503, slow_call_duration=1.0)

    async def unavailable() -> int:
        clock.advance(2.0)
        return 503

    assert asyncio.run(breaker.acall(unavailable)) == 503
    snapshot = breaker.snapshot()
    assert (snapshot.calls, snapshot.failures, snapshot.slow) == (1, 1, 1)


def test_a_cancelled_probe_counts_neither_way_and_gives_its_permit_back() -> None:
    clock = FakeClock()
    breaker = tripped(clock)
    clock.advance(30)

    async def scenario() -> None:
        probe = asyncio.create_task(breaker.acall(asyncio.Event().wait))
        await asyncio.sleep(0)
        assert breaker.snapshot().probes == 1
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert breaker.state is State.HALF_OPEN
        assert breaker.snapshot().probes == 0
        assert await breaker.acall(fetch) == 1

    asyncio.run(scenario())
    assert breaker.state is State.CLOSED


def test_a_probe_whose_coroutine_is_thrown_away_gives_its_permit_back() -> None:
    clock = FakeClock()
    breaker = tripped(clock)
    clock.advance(30)
    probe = breaker.acall(fetch)
    probe.send(None)
    assert breaker.snapshot().probes == 1
    probe.close()
    assert breaker.snapshot().probes == 0


def test_a_timeout_inside_the_function_counts_as_a_failure() -> None:
    breaker = CircuitBreaker(min_calls=1)

    async def hangs() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(breaker.acall(hangs))
    assert breaker.state is State.OPEN


def test_of_50_coroutines_exactly_one_probe_passes() -> None:
    clock = FakeClock()
    breaker = tripped(clock)
    clock.advance(30)
    reached = []

    async def backend() -> None:
        reached.append(1)
        await asyncio.sleep(0)

    async def scenario() -> list[object]:
        return await asyncio.gather(
            *(breaker.acall(backend) for _ in range(50)), return_exceptions=True
        )

    results = asyncio.run(scenario())
    assert len(reached) == 1
    assert sum(isinstance(result, CircuitOpenError) for result in results) == 49


# ----- the wrong method -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function", [fetch, functools.partial(fetch, 2), lambda: fetch()], ids=["def", "partial", "λ"]
)
def test_a_coroutine_function_passed_to_call_is_refused(function: object) -> None:
    breaker = CircuitBreaker(min_calls=1)
    with warnings.catch_warnings(record=True) as never_awaited:
        warnings.simplefilter("ignore")  # collecting may close what other tests left
        warnings.filterwarnings("always", "coroutine .* was never awaited")
        with pytest.raises(TypeError, match="await acall"):
            breaker.call(function)  # type: ignore[arg-type]
        gc.collect()
    assert never_awaited == []
    assert breaker.snapshot().calls == 0
    assert breaker.state is State.CLOSED


def test_a_coroutine_function_passed_to_call_as_a_probe_gives_the_permit_back() -> None:
    clock = FakeClock()
    breaker = tripped(clock)
    clock.advance(30)
    with pytest.raises(TypeError):
        breaker.call(fetch)
    assert breaker.snapshot().probes == 0


def test_a_plain_function_passed_to_acall_is_refused() -> None:
    breaker = CircuitBreaker(min_calls=1)
    with pytest.raises(TypeError, match="use call"):
        asyncio.run(breaker.acall(lambda: 3))  # type: ignore[arg-type, return-value]
    assert breaker.snapshot().calls == 0


# ----- decorator --------------------------------------------------------------------------------


def test_it_decorates_functions_and_keeps_their_name() -> None:
    breaker = CircuitBreaker(min_calls=1)

    @breaker
    def half(number: int) -> float:
        """Half of it."""
        if number < 0:
            raise BackendDownError
        return number / 2

    assert half(3) == 1.5
    assert (half.__name__, half.__doc__) == ("half", "Half of it.")
    with pytest.raises(BackendDownError):
        half(-1)
    with pytest.raises(CircuitOpenError):
        half(3)


def test_it_decorates_coroutine_functions_which_stay_coroutine_functions() -> None:
    breaker = CircuitBreaker(min_calls=1)
    guarded, guarded_down = breaker(fetch), breaker(fetch_down)
    assert inspect.iscoroutinefunction(guarded)
    assert asyncio.run(guarded(4)) == 4
    with pytest.raises(BackendDownError):
        asyncio.run(guarded_down())
    assert breaker.snapshot().failures == 0
    assert breaker.state is State.OPEN


def test_it_decorates_methods() -> None:
    breaker = CircuitBreaker()

    class Client:
        rate = 3

        @breaker
        def times(self, number: int) -> int:
            return self.rate * number

    assert Client().times(5) == 15
    assert breaker.snapshot().calls == 1


def test_generator_functions_are_refused_when_decorated() -> None:
    def rows() -> Iterator[int]:
        yield 1

    async def async_rows() -> AsyncIterator[int]:
        yield 1

    for generator_function in (rows, async_rows):
        with pytest.raises(TypeError, match="generator function"):
            CircuitBreaker()(generator_function)


# ----- guard ------------------------------------------------------------------------------------


def test_a_guarded_block_counts_its_success_and_its_failure() -> None:
    breaker = CircuitBreaker()
    with breaker.guard():
        pass
    with pytest.raises(BackendDownError), breaker.guard():
        raise BackendDownError
    snapshot = breaker.snapshot()
    assert (snapshot.calls, snapshot.failures) == (2, 1)


def test_a_guarded_block_can_call_itself_failed() -> None:
    breaker = CircuitBreaker()
    with breaker.guard() as guard:
        guard.fail()
    assert breaker.snapshot().failures == 1


def test_a_guarded_block_that_is_slow_counts_as_slow() -> None:
    clock = FakeClock()
    breaker = CircuitBreaker(clock=clock, slow_call_duration=1.0)
    with breaker.guard():
        clock.advance(1.0)
    assert breaker.snapshot().slow == 1


def test_an_ignored_exception_in_a_guarded_block_says_nothing() -> None:
    breaker = CircuitBreaker(ignore=(KeyError,))
    with pytest.raises(KeyError), breaker.guard():
        raise KeyError
    assert breaker.snapshot().calls == 0


def test_a_refused_block_does_not_run() -> None:
    breaker = CircuitBreaker()
    breaker.force_open()
    ran = False
    with pytest.raises(CircuitOpenError), breaker.guard():
        ran = True
    assert not ran


def test_a_guard_works_in_async_with_and_blocks_may_overlap() -> None:
    breaker = CircuitBreaker()

    async def block(gate: asyncio.Event, fails: bool) -> None:
        async with breaker.guard():
            await gate.wait()
            if fails:
                raise BackendDownError

    async def scenario() -> None:
        gate = asyncio.Event()
        blocks = [asyncio.create_task(block(gate, fails)) for fails in (False, True, False)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*blocks, return_exceptions=True)

    asyncio.run(scenario())
    snapshot = breaker.snapshot()
    assert (snapshot.calls, snapshot.failures) == (3, 1)


def test_a_guard_guards_one_block_only() -> None:
    guard = CircuitBreaker().guard()
    with guard:
        pass
    with pytest.raises(RuntimeError, match="one block"):
        guard.__enter__()
