"""Load generators, in virtual time wherever time is looked at."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import threading

import numpy as np
import pytest

from companion.instruments import (
    FakeClock,
    LoadResult,
    aclosed_loop,
    aopen_loop,
    closed_loop,
    open_loop,
    percentile,
    poisson_arrivals,
    steady_arrivals,
    stream,
)


class StallingServer:
    """Answers in 10 ms, but call number ``stalls`` takes a whole second."""

    def __init__(self, clock: FakeClock, stalls: int) -> None:
        self.clock, self.stalls = clock, stalls

    def __call__(self, number: int) -> None:
        self.clock.sleep(1.0 if number == self.stalls else 0.01)


# ----- coordinated omission ---------------------------------------------------------------------


def test_an_open_loop_shows_the_wait_behind_a_stall_and_a_closed_loop_hides_it() -> None:
    clock = FakeClock()
    closed = closed_loop(StallingServer(clock, stalls=50), calls=200, workers=1, clock=clock)
    clock = FakeClock()
    opened = open_loop(
        StallingServer(clock, stalls=50),
        steady_arrivals(rate=50, seconds=4),
        workers=1,
        clock=clock,
        sleep=clock.sleep,
    )
    assert closed.percentile(99) == pytest.approx(0.01)
    assert closed.percentile(100) == pytest.approx(1.0)
    assert opened.percentile(99) > 0.9
    assert sum(opened.latencies > 0.02) > 50, "many were due while the server stood still"
    assert sum(closed.latencies > 0.02) == 1


def test_open_loop_latency_runs_from_the_due_time() -> None:
    clock = FakeClock(100.0)
    result = open_loop(
        lambda number: clock.sleep(3.0),
        [0.0, 1.0, 2.0],
        workers=1,
        clock=clock,
        sleep=clock.sleep,
    )
    assert result.at.tolist() == [0.0, 1.0, 2.0]
    assert result.latencies.tolist() == [3.0, 5.0, 7.0]
    assert result.seconds == 9.0


def test_an_open_loop_waits_until_a_call_is_due() -> None:
    clock = FakeClock()
    began: list[float] = []
    open_loop(
        lambda number: began.append(clock()), [2.0, 5.0], workers=1, clock=clock, sleep=clock.sleep
    )
    assert began == [2.0, 5.0]


# ----- threads ----------------------------------------------------------------------------------


def test_every_call_is_made_exactly_once() -> None:
    made: list[int] = []
    result = closed_loop(made.append, calls=500, workers=8)
    assert sorted(made) == list(range(500))
    assert result.calls == len(result.latencies) == 500


def test_a_closed_loop_keeps_all_its_workers_busy() -> None:
    together = threading.Barrier(4)
    result = closed_loop(lambda number: together.wait(30), calls=4, workers=4)
    assert result.errors == {}


def test_an_open_loop_has_several_calls_under_way() -> None:
    together = threading.Barrier(4)
    result = open_loop(lambda number: together.wait(30), [0.0] * 4, workers=4)
    assert result.errors == {}


def test_errors_are_counted_by_name_and_apart_from_latencies() -> None:
    def call(number: int) -> None:
        if number % 3 == 0:
            raise TimeoutError
        if number % 3 == 1:
            raise LookupError

    result = closed_loop(call, calls=30, workers=3)
    assert result.errors == {"TimeoutError": 10, "LookupError": 10}
    assert len(result.latencies) == 10
    assert result.calls == 30


@pytest.mark.parametrize("workers", [1, 4])
def test_an_interrupt_ends_the_run_early(workers: int) -> None:
    made: list[int] = []
    interrupted = threading.Event()

    def call(number: int) -> None:
        made.append(number)
        if number == 5:
            interrupted.set()
            raise KeyboardInterrupt
        if interrupted.is_set():
            threading.Event().wait(0.01)

    with pytest.raises(KeyboardInterrupt):
        closed_loop(call, calls=100_000, workers=workers)
    assert len(made) < 100_000


# ----- tasks ------------------------------------------------------------------------------------


def test_an_async_closed_loop_calls_again_when_it_has_its_answer() -> None:
    clock = FakeClock()
    result = asyncio.run(
        clock.run(aclosed_loop(lambda number: clock.asleep(2.0), calls=6, workers=2, clock=clock))
    )
    assert result.at.tolist() == [0.0, 0.0, 2.0, 2.0, 4.0, 4.0]
    assert result.latencies.tolist() == [2.0] * 6
    assert result.throughput == 1.0


def test_an_async_closed_loop_by_time_begins_nothing_afterwards_and_waits_for_the_rest() -> None:
    clock = FakeClock()
    result = asyncio.run(
        clock.run(
            aclosed_loop(lambda number: clock.asleep(2.0), seconds=3.0, workers=2, clock=clock)
        )
    )
    assert result.at.tolist() == [0.0, 0.0, 2.0, 2.0]
    assert result.seconds == 4.0


@pytest.mark.parametrize(
    ("limits", "says"),
    [({}, "either"), ({"calls": 0}, "calls"), ({"seconds": 0.0}, "seconds")],
)
def test_an_async_closed_loop_needs_an_end(limits: dict[str, int], says: str) -> None:
    async def call(number: int) -> None: ...

    with pytest.raises(ValueError, match=says):
        asyncio.run(aclosed_loop(call, workers=1, **limits))  # type: ignore[arg-type]


def test_an_async_open_loop_sends_on_time_however_slow_the_answers() -> None:
    clock = FakeClock()
    began: list[float] = []

    async def call(number: int) -> None:
        began.append(clock())
        await clock.asleep(10.0)
        if number == 1:
            raise ConnectionError

    result = asyncio.run(
        clock.run(aopen_loop(call, [0.0, 1.0, 4.0], clock=clock, sleep=clock.asleep))
    )
    assert began == [0.0, 1.0, 4.0]
    assert result.latencies.tolist() == [10.0, 10.0]
    assert result.errors == {"ConnectionError": 1}
    assert result.seconds == 14.0


def test_an_async_open_loop_counts_the_time_that_the_loop_was_blocked() -> None:
    clock = FakeClock()

    async def blocks(number: int) -> None:
        clock.advance(3.0)

    result = asyncio.run(clock.run(aopen_loop(blocks, [0.0, 1.0], clock=clock, sleep=clock.asleep)))
    assert result.latencies.tolist() == [3.0, 5.0]


# ----- arrivals ---------------------------------------------------------------------------------


def test_steady_arrivals_are_evenly_spaced() -> None:
    assert steady_arrivals(rate=4, seconds=1).tolist() == [0.0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_have_the_rate_and_the_irregularity_that_they_should() -> None:
    arrivals = poisson_arrivals(rate=100, seconds=200, rng=stream(1, "arrivals"))
    gaps = np.diff(arrivals)
    assert len(arrivals) == pytest.approx(20_000, rel=0.03)
    assert gaps.min() >= 0
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05), "gaps of a Poisson process"
    assert 0 <= arrivals[0] <= arrivals[-1] <= 200


# ----- results ----------------------------------------------------------------------------------


def test_percentiles_are_samples_and_exact() -> None:
    samples = [0.4, 0.1, 0.3, 0.2]
    found = [percentile(samples, q) for q in (0, 25, 26, 50, 75, 99, 100)]
    assert found == [0.1, 0.1, 0.2, 0.2, 0.3, 0.4, 0.4]


@pytest.mark.parametrize("q", [-1, 100.1, math.nan])
def test_a_percentile_out_of_range_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="percentage"):
        percentile([1.0], q)


def test_a_run_without_successes_has_no_percentiles_and_no_throughput() -> None:
    result = closed_loop(lambda number: 1 / 0, calls=2, workers=1, clock=FakeClock())
    assert result.throughput == 0.0
    with pytest.raises(ValueError, match="at least one sample"):
        result.percentile(50)


def test_a_result_cannot_be_changed_afterwards() -> None:
    result = LoadResult(np.zeros(1), np.zeros(1), {}, 1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.seconds = 2.0  # type: ignore[misc]


# ----- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrivals", "says"),
    [
        ([], "at least one"),
        ([[1.0]], "flat"),
        ([2.0, 1.0], "ascending"),
        ([-1.0], "ascending"),
        ([math.nan], "ascending"),
        ([0.0, math.inf], "ascending"),
    ],
)
def test_arrivals_that_make_no_timetable_are_refused(arrivals: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        open_loop(lambda number: None, arrivals)


@pytest.mark.parametrize(("calls", "workers", "names"), [(0, 1, "calls"), (1, 0, "workers")])
def test_loops_without_calls_or_workers_are_refused(calls: int, workers: int, names: str) -> None:
    async def nothing(number: int) -> None: ...

    with pytest.raises(ValueError, match=names):
        closed_loop(lambda number: None, calls=calls, workers=workers)
    with pytest.raises(ValueError, match=names):
        asyncio.run(aclosed_loop(nothing, calls=calls, workers=workers))


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (1, 0), (math.nan, 1)])
def test_arrivals_need_a_rate_and_a_length(rate: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        steady_arrivals(rate, seconds)
    with pytest.raises(ValueError, match="positive"):
        poisson_arrivals(rate, seconds, stream(1, "arrivals"))
