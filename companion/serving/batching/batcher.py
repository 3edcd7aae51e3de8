"""The batcher: callers on the event loop, one thread for the model, and a queue between them.

Everything but `predict` itself runs on the loop, in callbacks that never wait, so there is no lock
and nothing to interleave. The thread is one for two reasons: a second call beside the first would
only take its core away, and scikit-learn's `predict_proba` changes the process-wide warning filters
while it runs, which two threads do to each other.

Rows leave in the loop's *next* turn, not in the one in which the rule said so. Callers who are
answered together ask again together, in one turn; without that turn's patience the first of them
would leave alone and the others wait for it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from companion.serving.batching.answering import ROW_ERRORS, Failed, Predict, answers
from companion.serving.batching.errors import (
    BatcherClosedError,
    PredictorExitError,
    QueueFullError,
)
from companion.serving.batching.gathering import Gathering

_MEMORY = 0.8
"""Share of the old value in the running mean of a batch's seconds."""


@dataclass(frozen=True)
class BatcherStats:
    """Counted since the start: `rows` in `batches` handed to the model (`largest`: rows of one).

    `failed` rows ended with an error, `cancelled` ones were given up by their callers, `refused`
    ones found the queue full. `waiting` is how many wait now.
    """

    rows: int = 0
    batches: int = 0
    largest: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    waiting: int = 0

    @property
    def mean_batch(self) -> float:
        """Rows per batch; 0 before the first batch."""
        return self.rows / self.batches if self.batches else 0.0


class MicroBatcher:
    """Predicts rows of concurrent callers together, during `async with MicroBatcher(…) as batcher`.

    Args:
        predict: gets rows × features and gives one result a row, in order (array or sequence). It
            runs in one thread, never on the loop and never twice at once.
        max_batch: most rows in one call.
        max_delay: most seconds for which a row is held back from a free model for others to join.
        max_queue: most rows that wait; those in the model's hands do not count.
        adaptive: hold rows back only where company is expected; otherwise always, as Triton does.
            `Gathering` has both rules.
        row_errors: the errors of `predict` that one bad row causes; such a batch is halved and
            asked again until the row stands alone. Any other error reaches all rows of the batch.
        dtype: of the stacked rows.
        executor: runs `predict` in place of a thread of the batcher's own; not shut down.
        clock, sleep: how to measure and pass time, in seconds.

    Leaving the block refuses new rows and waits until those that wait are answered. If that is
    cancelled, they get `BatcherClosedError`.

    Raises:
        ValueError: a limit out of its range.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        max_batch: int = 64,
        max_delay: float = 0.005,
        max_queue: int = 1024,
        adaptive: bool = True,
        row_errors: tuple[type[Exception], ...] = ROW_ERRORS,
        dtype: type[np.generic] = np.float64,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if max_queue < 1:
            raise ValueError(f"at least 1 row may wait, got max_queue={max_queue}")
        self._gathering = Gathering(max_batch, max_delay, adaptive)
        self._predict = predict
        self._max_queue = max_queue
        self._row_errors = row_errors
        self._dtype = dtype
        self._given_executor = executor
        self._clock = clock
        self._sleep = sleep

        self._loop: asyncio.AbstractEventLoop | None = None
        self._executor: Executor | None = None
        self._accepts = False
        # In order of arrival: each caller's future, with its row and when it came.
        self._waiting: OrderedDict[asyncio.Future[Any], tuple[NDArray[Any], float]] = OrderedDict()
        self._busy_since: float | None = None
        self._leaving: asyncio.Handle | None = None
        self._alarm: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._company, self._freed_at = 0, -math.inf
        self._batch_seconds = 0.0
        self._rows = self._batches = self._largest = 0
        self._failed = self._cancelled = self._refused = 0

    async def predict(self, row: ArrayLike) -> Any:
        """The model's result for `row` (a flat list of numbers).

        Raises:
            ValueError, TypeError: the row is not flat, or holds no numbers; nobody else notices.
            QueueFullError: too many rows wait.
            BatcherClosedError: outside the `async with` block.
            BatchResultError: the model gave another number of results than it got rows.
            PredictorExitError: the model raised what is no ordinary error.
            Exception: whatever else the model raised for this row, or for the whole batch.
        """
        if not self._accepts:
            raise BatcherClosedError("the batcher takes rows only inside its `async with` block")
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("the batcher belongs to the event loop in which it was entered")
        if len(self._waiting) >= self._max_queue:
            self._refused += 1
            raise QueueFullError(len(self._waiting), self._seconds_until_room())
        own = np.array(row, dtype=self._dtype)  # a copy: the caller may use its row again
        if own.ndim != 1:
            raise ValueError(f"a row is a flat list of numbers, got {own.ndim} dimensions")
        answer = self._loop.create_future()
        self._waiting[answer] = (own, self._clock())
        self._consider()
        try:
            return await answer
        except asyncio.CancelledError:
            self._cancelled += 1
            self._waiting.pop(answer, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, or asyncio complains of one that nobody asked for
            raise

    def stats(self) -> BatcherStats:
        """What has been counted so far, at no cost."""
        return BatcherStats(
            rows=self._rows,
            batches=self._batches,
            largest=self._largest,
            failed=self._failed,
            cancelled=self._cancelled,
            refused=self._refused,
            waiting=len(self._waiting),
        )

    async def __aenter__(self) -> MicroBatcher:
        """Raises `RuntimeError` when it has been entered before."""
        if self._loop is not None:
            raise RuntimeError("a batcher is entered once; make another")
        self._loop = asyncio.get_running_loop()
        self._executor = self._given_executor or ThreadPoolExecutor(
            1, thread_name_prefix="micro-batcher"
        )
        self._accepts = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._loop is not None
        self._accepts = False
        self._drained = self._loop.create_future()
        self._consider()
        try:
            await self._drained
        finally:
            if self._alarm is not None:
                self._alarm.cancel()
            self._forsake()
            if isinstance(self._executor, ThreadPoolExecutor) and not self._given_executor:
                self._executor.shutdown(wait=self._busy_since is None)

    def _consider(self) -> None:
        """See to it that the rows that wait leave in time."""
        if self._busy_since is not None or self._leaving is not None:
            return
        if not self._waiting:
            if self._drained is not None and not self._drained.done():
                self._drained.set_result(None)
            return
        assert self._loop is not None
        _, first_came = next(iter(self._waiting.values()))
        leave_at = self._gathering.leave_at(
            len(self._waiting), first_came, self._company, self._freed_at
        )
        left = leave_at - self._clock()
        if left <= 0 or not self._accepts:
            self._leaving = self._loop.call_soon(self._leave)
        elif self._alarm is None:
            self._alarm = self._loop.create_task(self._consider_in(left))

    async def _consider_in(self, seconds: float) -> None:
        await self._sleep(seconds)
        self._alarm = None
        self._consider()

    def _leave(self) -> None:
        self._leaving = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if not self._waiting:  # all were cancelled in the meantime
            self._consider()
            return
        assert self._loop is not None
        size = min(len(self._waiting), self._gathering.max_batch)
        batch = [self._waiting.popitem(last=False) for _ in range(size)]
        callers = [caller for caller, _ in batch]
        rows = [row for _, (row, _) in batch]
        self._rows += size
        self._batches += 1
        self._largest = max(self._largest, size)
        self._busy_since = self._clock()
        try:
            running = self._loop.run_in_executor(
                self._executor, answers, self._predict, rows, self._row_errors
            )
        except RuntimeError as error:  # the executor was shut down
            self._deliver(callers, [Failed(error)] * size)
        else:
            running.add_done_callback(lambda done: self._deliver(callers, _outcomes(done, size)))

    def _deliver(self, callers: list[asyncio.Future[Any]], outcomes: list[Any]) -> None:
        for caller, outcome in zip(callers, outcomes, strict=True):
            is_failure = isinstance(outcome, Failed)
            self._failed += is_failure
            if caller.done():  # cancelled
                continue
            if is_failure:
                caller.set_exception(outcome.error)
            else:
                caller.set_result(outcome)
        assert self._busy_since is not None
        now = self._clock()
        took = now - self._busy_since
        self._batch_seconds = (
            took if self._company == 0 else _MEMORY * self._batch_seconds + (1 - _MEMORY) * took
        )
        self._company = len(callers) + len(self._waiting)
        self._freed_at = now
        self._busy_since = None
        self._consider()

    def _seconds_until_room(self) -> float:
        """How long the rows that wait now will take, judged by the batches so far."""
        batches = math.ceil(len(self._waiting) / self._gathering.max_batch)
        # A call that takes longer than the ones before it may be the new normal.
        running = 0.0 if self._busy_since is None else self._clock() - self._busy_since
        return max(batches * max(self._batch_seconds, running), self._gathering.max_delay)

    def _forsake(self) -> None:
        """Whoever waits still will not be answered."""
        while self._waiting:
            caller, _ = self._waiting.popitem(last=False)
            if not caller.done():
                caller.set_exception(BatcherClosedError("the batcher was stopped before its turn"))


def _outcomes(done: asyncio.Future[list[Any]], size: int) -> list[Any]:
    if done.cancelled():
        return [Failed(BatcherClosedError("the executor gave the batch up"))] * size
    error = done.exception()
    if error is None:
        return done.result()
    # `answers` raises nothing; an executor may, such as a pool of processes that broke.
    return [Failed(error if isinstance(error, Exception) else PredictorExitError(error))] * size
