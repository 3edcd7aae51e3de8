"""The batcher against a reference that works the batches out from event to event.

Hypothesis makes up traffic: rows that come, are given up, or poison the model, while batches take
as long as they take. Virtual time, in whole ticks, so that rounding plays no part; calls and delays
last multiples of `STEP` ticks, and each row comes and goes at remainders of its own, so that no two
things happen at once.
"""

import asyncio
import dataclasses
import math
from concurrent.futures import Executor, Future

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.instruments import FakeClock
from companion.serving.batching import (
    BatcherClosedError,
    MicroBatcher,
    QueueFullError,
)

TICK = 1 / 2**20  # seconds
STEP = 64
MOST_ROWS = 25


@dataclasses.dataclass(frozen=True)
class Row:
    number: int
    came: float
    gives_up: float = math.inf
    is_poison: bool = False


@dataclasses.dataclass(frozen=True)
class Settings:
    max_batch: int
    max_delay: float
    max_queue: int
    adaptive: bool
    seconds: float


@st.composite
def traffic(draw):
    gaps = draw(st.lists(st.integers(0, 40), min_size=1, max_size=MOST_ROWS))
    rows = []
    for number, step in enumerate(np.cumsum(gaps)):
        came = int(step) * STEP + number + 1
        patience = draw(st.one_of(st.none(), st.integers(0, 60)))
        gives_up = math.inf if patience is None else came + patience * STEP + STEP // 2
        poison = draw(st.sampled_from([False, False, False, True]))
        rows.append(Row(number, came * TICK, gives_up * TICK, poison))
    return rows


configurations = st.builds(
    Settings,
    max_batch=st.integers(1, 6),
    max_delay=st.integers(0, 30).map(lambda n: n * STEP * TICK),
    max_queue=st.integers(1, 8),
    adaptive=st.booleans(),
    seconds=st.integers(1, 50).map(lambda n: n * STEP * TICK),
)


def reference(rows, settings):
    """The batches as `(time, numbers)`, and who was refused."""
    batches, refused = [], set()
    waiting, running, company = [], 0, 0
    free_at = -math.inf  # of the call under way, or of the last one
    moments = [(row.came, "comes", row) for row in rows]
    moments += [(row.gives_up, "goes", row) for row in rows if row.gives_up < math.inf]
    moments.sort(key=lambda moment: moment[0])
    while moments or waiting or running:
        until = moments[0][0] if moments else math.inf
        if running:
            if free_at < until:
                company, running = running + len(waiting), 0
                continue
        elif waiting and (leaves := _leaves(waiting, company, free_at, settings)) < until:
            batch, waiting = waiting[: settings.max_batch], waiting[settings.max_batch :]
            batches.append((leaves, [row.number for row in batch]))
            free_at, running = leaves + settings.seconds, len(batch)
            continue
        _, what, row = moments.pop(0)
        if what == "goes":
            waiting = [other for other in waiting if other is not row]
        elif len(waiting) >= settings.max_queue:
            refused.add(row.number)
        else:
            waiting.append(row)
    return batches, refused


def _leaves(waiting, company, free_at, settings):
    first, last = waiting[0].came, waiting[-1].came
    if settings.adaptive:
        expected = company if first - free_at <= settings.max_delay else 1
        since = max(first, free_at)
    else:
        expected, since = settings.max_batch, first
    # The row that makes the number complete lets them leave; the model must be free, too.
    is_complete = len(waiting) >= min(expected, settings.max_batch)
    return max(last if is_complete else since + settings.max_delay, free_at)


class Thread(Executor):
    """The model's thread in virtual time: remembers when it was given what, and never twice."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds
        self.is_busy = False
        self.began = []

    def submit(self, function, /, *args, **kwargs):
        assert not self.is_busy
        self.is_busy = True
        self.began.append(self.clock())
        ended = Future()

        async def work():
            await self.clock.asleep(self.seconds)
            self.is_busy = False
            ended.set_result(function(*args, **kwargs))

        self.task = asyncio.ensure_future(work())
        return ended


def played(rows, settings):
    """What the batcher makes of it: batches as above, and how each row ended."""
    clock = FakeClock()
    thread = Thread(clock, settings.seconds)
    poison = {row.number for row in rows if row.is_poison}
    asked = []

    def model(matrix):
        numbers = [int(number) for number in matrix[:, 0]]
        asked.append(numbers)
        if poison & set(numbers):
            raise ValueError("poison")
        return matrix[:, 0] * 10

    async def caller(batcher, row):
        await clock.asleep(row.came)
        asking = asyncio.ensure_future(batcher.predict([row.number]))
        if row.gives_up < math.inf:
            giving_up = asyncio.ensure_future(clock.asleep(row.gives_up - row.came))
            await asyncio.wait([asking, giving_up], return_when=asyncio.FIRST_COMPLETED)
            giving_up.cancel()
            asking.cancel()
        return await asyncio.gather(asking, return_exceptions=True)

    async def main():
        async with MicroBatcher(
            model,
            max_batch=settings.max_batch,
            max_delay=settings.max_delay,
            max_queue=settings.max_queue,
            adaptive=settings.adaptive,
            executor=thread,
            clock=clock,
            sleep=clock.asleep,
        ) as batcher:
            ends = await asyncio.gather(*(caller(batcher, row) for row in rows))
        return [end for (end,) in ends], batcher.stats()

    ends, stats = asyncio.run(clock.run(main()))
    return thread.began, asked, ends, stats


@settings(max_examples=80, deadline=None)
@given(rows=traffic(), chosen=configurations)
def test_batches_leave_when_the_reference_says_with_the_rows_that_it_says(rows, chosen):
    healthy = [dataclasses.replace(row, is_poison=False) for row in rows]
    expected, refused = reference(healthy, chosen)
    began, asked, ends, stats = played(healthy, chosen)
    assert list(zip(began, asked, strict=True)) == expected
    for row, end in zip(healthy, ends, strict=True):
        assert isinstance(end, QueueFullError) == (row.number in refused)
    assert stats.batches == len(expected)


@settings(max_examples=80, deadline=None)
@given(rows=traffic(), chosen=configurations)
def test_every_row_ends_with_its_own_result_or_its_own_error(rows, chosen):
    _, asked, ends, stats = played(rows, chosen)
    for row, end in zip(rows, ends, strict=True):
        if isinstance(end, asyncio.CancelledError):
            assert row.gives_up < math.inf
        elif isinstance(end, QueueFullError):
            assert end.retry_after >= chosen.max_delay
        elif row.is_poison:
            assert isinstance(end, ValueError)
        else:
            assert end == 10 * row.number
    assert not any(isinstance(end, BatcherClosedError) for end in ends)
    assert max(map(len, asked), default=0) <= chosen.max_batch
    assert stats.waiting == 0
    assert stats.rows + stats.refused <= len(rows)
