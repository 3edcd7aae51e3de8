"""Load generators, closed-loop and open-loop, that keep every sample.

A *closed* loop has a fixed number of callers, each of which waits for its answer before it calls
again.  When the system stalls, the callers stall with it and send nothing: the very requests that
would have been slow are never made.  An *open* loop sends by a timetable, as the world does, and
measures each latency from the moment when the request was *due*, so that waiting for a free
caller counts too.  Schroeder, Wierman and Harchol-Balter ("Open versus closed: a cautionary
tale", NSDI 2006) describe the difference; Gil Tene named the mistake of reporting closed-loop
numbers as if they were open *coordinated omission*.

Percentiles are exact: computed from all samples, not from a histogram.  Errors are counted apart,
since a quick refusal would make latencies look better.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from companion.instruments.percentiles import percentile

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LoadResult:
    """What a load run measured.

    ``latencies`` holds the seconds that each *successful* call took, ``at`` when that call was due
    (open loop) or began (closed loop), in seconds from the start of the run; both are in order of
    ``at``.  ``errors`` counts failed calls by the name of their exception.  ``seconds`` is the
    length of the run, from its start to its last answer.
    """

    at: Floats
    latencies: Floats
    errors: Mapping[str, int]
    seconds: float

    @property
    def calls(self) -> int:
        """How many calls ended, well or not."""
        return len(self.latencies) + sum(self.errors.values())

    @property
    def throughput(self) -> float:
        """Successful calls per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def percentile(self, q: float) -> float:
        """The latency in seconds that ``q`` percent (0 to 100) of the successes did not exceed.

        Raises:
            ValueError: no call succeeded, or ``q`` is out of range.
        """
        return percentile(self.latencies, q)


def steady_arrivals(rate: float, seconds: float) -> Floats:
    """Due times (seconds from the start) of ``rate`` calls a second, evenly spaced."""
    _refuse_unless_positive(rate=rate, seconds=seconds)
    return np.arange(round(rate * seconds)) / rate


def poisson_arrivals(rate: float, seconds: float, rng: np.random.Generator) -> Floats:
    """Due times of callers who know nothing of each other, ``rate`` a second on average."""
    _refuse_unless_positive(rate=rate, seconds=seconds)
    return np.sort(rng.uniform(0.0, seconds, rng.poisson(rate * seconds)))


def closed_loop(
    call: Callable[[int], object],
    *,
    calls: int,
    workers: int,
    clock: Callable[[], float] = time.perf_counter,
) -> LoadResult:
    """Make ``calls`` calls from ``workers`` threads, each calling again once it has its answer.

    ``call`` gets the number of the call, from 0.  An interrupt ends the run after the calls
    under way.

    Raises:
        ValueError: ``calls`` or ``workers`` below 1.
    """
    _refuse_unless_positive(calls=calls, workers=workers)
    tally = _Tally(clock)
    turns = _Turns(calls)

    def work() -> None:
        for number in turns:
            tally.run(call, number, clock())

    _in_threads(work, min(workers, calls), turns)
    return tally.result()


def open_loop(
    call: Callable[[int], object],
    arrivals: Sequence[float] | Floats,
    *,
    workers: int = 64,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> LoadResult:
    """Make one call per arrival, when it is due or as soon after as one of ``workers`` is free.

    Latency runs from the due time either way.  ``arrivals`` are seconds from the start.

    Raises:
        ValueError: no arrivals, negative or unsorted ones, or ``workers`` below 1.
    """
    _refuse_unless_positive(workers=workers)
    timetable = _timetable(arrivals)
    tally = _Tally(clock)
    turns = _Turns(len(timetable))

    def work() -> None:
        for number in turns:
            due = tally.start + timetable[number]
            if (wait := due - clock()) > 0:
                sleep(wait)
            tally.run(call, number, due)

    _in_threads(work, min(workers, len(timetable)), turns)
    return tally.result()


async def aclosed_loop(
    call: Callable[[int], Awaitable[object]],
    *,
    calls: int | None = None,
    seconds: float | None = None,
    workers: int,
    clock: Callable[[], float] = time.perf_counter,
) -> LoadResult:
    """:func:`closed_loop` with tasks instead of threads; ``seconds`` ends it as well as ``calls``.

    Nothing begins once ``seconds`` have passed; what is under way then is waited for and counts.

    Raises:
        ValueError: neither ``calls`` nor ``seconds``, or one that is not positive.
    """
    if calls is None and seconds is None:
        raise ValueError("a closed loop ends after so many calls or so many seconds; give either")
    limits = {"calls": calls, "seconds": seconds, "workers": workers}
    _refuse_unless_positive(**{name: limit for name, limit in limits.items() if limit is not None})
    tally = _Tally(clock)
    turns = itertools.count() if calls is None else iter(range(calls))
    end = math.inf if seconds is None else tally.start + seconds

    async def work() -> None:
        while clock() < end and (number := next(turns, None)) is not None:
            await tally.arun(call, number, clock())

    async with asyncio.TaskGroup() as group:
        for _ in range(workers if calls is None else min(workers, calls)):
            group.create_task(work())
    return tally.result()


async def aopen_loop(
    call: Callable[[int], Awaitable[object]],
    arrivals: Sequence[float] | Floats,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> LoadResult:
    """:func:`open_loop` with a task per arrival, however many are under way."""
    timetable = _timetable(arrivals)
    tally = _Tally(clock)
    async with asyncio.TaskGroup() as group:
        for number, offset in enumerate(timetable):
            due = tally.start + offset
            if (wait := due - clock()) > 0:
                await sleep(wait)
            group.create_task(tally.arun(call, number, due))
    return tally.result()


class _Tally:
    """Collects samples; appending to a list is atomic, so threads need no lock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._samples: list[tuple[float, float]] = []
        self._errors: list[str] = []
        self.start = clock()

    def run(self, call: Callable[[int], object], number: int, since: float) -> None:
        try:
            call(number)
        except Exception as error:  # noqa: BLE001 - a failed call is a result here
            self._errors.append(type(error).__name__)
        else:
            self._samples.append((since - self.start, self._clock() - since))

    async def arun(
        self, call: Callable[[int], Awaitable[object]], number: int, since: float
    ) -> None:
        try:
            await call(number)
        except Exception as error:  # noqa: BLE001 - a failed call is a result here
            self._errors.append(type(error).__name__)
        else:
            self._samples.append((since - self.start, self._clock() - since))

    def result(self) -> LoadResult:
        seconds = self._clock() - self.start
        samples = np.array(sorted(self._samples), dtype=np.float64).reshape(-1, 2)
        return LoadResult(samples[:, 0], samples[:, 1], dict(Counter(self._errors)), seconds)


class _Turns:
    """Hands the numbers 0 … ``count`` - 1 to several threads, until it is told to stop."""

    def __init__(self, count: int) -> None:
        self._numbers = itertools.count()
        self._count = count
        self._lock = threading.Lock()

    def stop(self) -> None:
        self._count = 0

    def __iter__(self) -> Iterator[int]:
        while True:
            with self._lock:
                number = next(self._numbers)
            if number >= self._count:
                return
            yield number


def _in_threads(work: Callable[[], None], workers: int, turns: _Turns) -> None:
    with ThreadPoolExecutor(workers, thread_name_prefix="load") as pool:
        try:
            for done in [pool.submit(work) for _ in range(workers)]:
                done.result()
        finally:
            turns.stop()


def _timetable(arrivals: Sequence[float] | Floats) -> list[float]:
    times = np.asarray(arrivals, dtype=np.float64)
    if times.ndim != 1 or not len(times):
        raise ValueError("an open loop needs a flat list of at least one arrival")
    if not np.isfinite(times).all() or times[0] < 0 or (np.diff(times) < 0).any():
        raise ValueError("arrivals are seconds from the start, in ascending order")
    return [float(time) for time in times]


def _refuse_unless_positive(**settings: float) -> None:
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
