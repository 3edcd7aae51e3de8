"""How late does the event loop run what is due?

A task asks to be woken after a short interval and notes how much later it is.  Whatever blocks the
loop (a model that predicts inside ``async def``, a synchronous client) delays every other request
by the same time, so this lag is the first thing to watch in an async service.  The technique is
that of Node's ``monitorEventLoopDelay``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from companion.instruments.percentiles import percentile


class LoopLag:
    """Measures the lag of the running loop during ``async with LoopLag() as lag: …``.

    Leaving the block waits for the tick under way (``interval`` seconds at most), so that a block
    which holds up the loop until its very end is seen too.  An exception cuts it short.

    Args:
        interval: seconds between two ticks; what blocks the loop for less may go unseen.

    Raises:
        ValueError: an interval that is not positive.
    """

    def __init__(
        self,
        interval: float = 0.005,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not interval > 0:
            raise ValueError(f"the interval must be positive, got {interval}")
        self._interval = interval
        self._clock = clock
        self._sleep = sleep
        self._samples: list[float] = []
        self._leaving = False
        self._ticker: asyncio.Task[None] | None = None

    @property
    def samples(self) -> NDArray[np.float64]:
        """Seconds of lag, one per tick, in order."""
        return np.array(self._samples, dtype=np.float64)

    @property
    def worst(self) -> float:
        """The longest lag so far, in seconds; 0 before the first tick."""
        return max(self._samples, default=0.0)

    def percentile(self, q: float) -> float:
        """The lag in seconds that ``q`` percent (0 to 100) of the ticks did not exceed.

        Raises:
            ValueError: before the first tick, or ``q`` out of range.
        """
        return percentile(self._samples, q)

    async def __aenter__(self) -> LoopLag:
        started = asyncio.Event()
        self._ticker = asyncio.create_task(self._tick(started))
        await started.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._ticker is not None
        self._leaving = True
        if error is None:
            await self._ticker
        else:
            self._ticker.cancel()
            await asyncio.wait([self._ticker])

    async def _tick(self, started: asyncio.Event) -> None:
        started.set()
        while not self._leaving:
            due = self._clock() + self._interval
            await self._sleep(self._interval)
            self._samples.append(max(0.0, self._clock() - due))
