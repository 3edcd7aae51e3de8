"""A clock that moves only when told to, for code that takes its clock as an argument.

The idea: time is an input like any other.  Whoever measures durations or waits gets a clock
(``clock=time.monotonic``) and a way to sleep; a test hands in a :class:`FakeClock` instead, and an
hour passes in no time, always the same way.  Jumping straight to the next wake-up once everybody
waits comes from discrete-event simulation; Trio's ``MockClock`` calls it *autojump*.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_TURNS_UNTIL_IDLE = 64
"""Event-loop turns without a new sleeper after which :meth:`FakeClock.run` calls the loop idle."""


class FakeClock:
    """A monotonic clock in seconds that stands still between calls of :meth:`advance`.

    Calling the clock returns the time, so it fits wherever ``time.monotonic`` does.

    * :meth:`sleep` is for one thread of control: sleeping *is* advancing the clock.
    * :meth:`asleep` waits until somebody else advances the clock far enough.
    * :meth:`run` runs a coroutine and advances the clock by itself whenever all wait for it.

    :meth:`advance` first moves the clock all the way, then wakes every sleeper that is due, in
    order of wake-up time and, for equal times, in order of falling asleep.  The woken tasks run on
    their event loop's next turns, so each reads the time *after* the advance.  To let each of them
    run at its own time use several small advances, or :meth:`run`.

    All methods may be called from any thread.

    Raises:
        ValueError: a start, step or sleep that is negative (only a step or a sleep), infinite or
            not a number.
    """

    def __init__(self, start: float = 0.0) -> None:
        if not math.isfinite(start):
            raise ValueError(f"a clock starts at a finite number of seconds, got {start}")
        self._now = float(start)
        self._lock = threading.Lock()
        self._order = 0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        """The time now, in seconds."""
        return self._now

    def __repr__(self) -> str:
        return f"FakeClock({self._now})"

    @property
    def sleepers(self) -> int:
        """How many tasks wait in :meth:`asleep`."""
        with self._lock:
            return sum(not future.done() for _, _, future in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Move the clock forward and wake the sleepers that are due (see the class)."""
        _refuse_backwards(seconds)
        with self._lock:
            self._move_to(self._now + seconds)

    def sleep(self, seconds: float) -> None:
        """Pass ``seconds`` at once, as ``time.sleep`` would pass them slowly."""
        self.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        """Wait until the clock has moved ``seconds`` further; zero gives way for one turn."""
        _refuse_backwards(seconds)
        if seconds == 0:
            await asyncio.sleep(0)
            return
        with self._lock:
            woken = asyncio.get_running_loop().create_future()
            self._order += 1
            heapq.heappush(self._sleepers, (self._now + seconds, self._order, woken))
        await woken

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` to its end in this clock's time and return its result.

        Whenever no task has anything to do before some sleeper wakes, the clock jumps there.
        Everything must wait on this clock (or on tasks that do): work in other threads and real
        I/O go unseen, and the clock would run ahead of them.
        """
        task = asyncio.ensure_future(coroutine)
        try:
            while not await self._settles(task):
                with self._lock:
                    self._forget_cancelled()
                    if self._sleepers:
                        self._move_to(self._sleepers[0][0])
            return await task
        finally:
            task.cancel()

    async def _settles(self, task: asyncio.Future[T]) -> bool:
        """Give way until the loop is idle; true if ``task`` is done by then."""
        seen, quiet_turns = self._order, 0
        while quiet_turns < _TURNS_UNTIL_IDLE and not task.done():
            await asyncio.sleep(0)
            quiet_turns = quiet_turns + 1 if self._order == seen else 0
            seen = self._order
        return task.done()

    def _forget_cancelled(self) -> None:
        """Drop sleepers at the front whose task was cancelled.  Needs the lock."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)

    def _move_to(self, then: float) -> None:
        """Set the time and wake who is due, in order.  Needs the lock."""
        self._now = then
        while self._sleepers and self._sleepers[0][0] <= then:
            _, _, woken = heapq.heappop(self._sleepers)
            loop = woken.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, woken)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def _refuse_backwards(seconds: float) -> None:
    if not 0 <= seconds < math.inf:
        raise ValueError(f"time moves forward by a finite number of seconds, got {seconds}")
