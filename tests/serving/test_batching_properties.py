"""The batcher against a reference that works the batches out from a list of arrivals.

Hypothesis makes up traffic: rows that come, are given up, or poison the model, while batches take
as long as they take. Virtual time; every row has a time of its own (odd numbers of 1/1024 s, while
calls and delays last even ones), so that no two things happen at once and rounding plays no part.
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

TICK = 1 / 1024


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
    gaps = draw(st.lists(st.integers(1, 40), min_size=1, max_size=25))
    came = np.cumsum(gaps) * 4
    rows = []
    for number, tick in enumerate(came):
        patience = draw(st.one_of(st.just(math.inf), st.integers(0, 60).map(lambda n: 4 * n + 2)))
        poison = draw(st.sampled_from([False, False, False, True]))
        rows.append(Row(number, (tick + 1) * TICK, (tick + 1 + patience) * TICK, poison))
    return rows


configurations = st.builds(
    Settings,
    max_batch=st.integers(1, 6),
    max_delay=st.integers(0, 30).map(lambda n: 4 * n * TICK),
    max_queue=st.integers(1, 8),
    adaptive=st.booleans(),
    seconds=st.integers(1, 50).map(lambda n: 4 * n * TICK),
)


def reference(rows, settings):
    """The batches as `(time, numbers)`, and who was refused: worked out from event to event."""
    batches, refused = [], set()
    waiting, free_at, last_size, last_ended = [], -math.inf, 0, -math.inf
    moments = sorted([(row.came, "comes", row) for row in rows]
                     + [(row.gives_up, "leaves", row) for row in rows if row.gives_up < math.inf],
                     key=lambda moment: moment[0])  # fmt: skip
    while moments or waiting:
        until = moments[0][0] if moments else math.inf
        if waiting:
            first = waiting[0].came
            recent = first - last_ended <= settings.max_delay
            wanted = settings.max_batch
            if settings.adaptive:
                wanted = min(wanted, last_size) if recent else 1
            due = first if len(waiting) >= wanted else first + settings.max_delay
            # Not before the model is free, nor before the last arrival made the decision.
            starts = max(due, free_at, waiting[-1].came if due == first else due)
            if starts < until:
                batch, waiting = waiting[: settings.max_batch], waiting[settings.max_batch :]
                batches.append((starts, [row.number for row in batch]))
                free_at = last_ended = starts + settings.seconds
                last_size = len(batch)
                continue
        _, what, row = moments.pop(0)
        if what == "leaves":
            waiting = [other for other in waiting if other is not row]
        elif len(waiting) >= settings.max_queue:
            refused.add(row.number)
        else:
            waiting.append(row)
    return batches, refused


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
            # A row that was given up in the model's hands may still be there.
        return [end for (end,) in ends], batcher.stats()

    ends, stats = asyncio.run(clock.run(main()))
    return thread.began, asked, ends, stats


@settings(max_examples=150, deadline=None)
@given(rows=traffic(), chosen=configurations)
def test_batches_leave_when_the_reference_says_with_the_rows_that_it_says(rows, chosen):
    healthy = [dataclasses.replace(row, is_poison=False) for row in rows]
    expected, refused = reference(healthy, chosen)
    began, asked, ends, stats = played(healthy, chosen)
    assert list(zip(began, asked, strict=True)) == expected
    for row, end in zip(healthy, ends, strict=True):
        assert isinstance(end, QueueFullError) == (row.number in refused)
    assert stats.batches == len(expected)


@settings(max_examples=150, deadline=None)
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
