"""Single flight: of all who want the same thing at the same time, one goes and the others wait.

When a popular entry runs out, every request for it misses at once, and all of them would compute.
Here the first caller of a key leads and the rest share what it brings, its error included; later
callers start anew. The name and the idea are those of Go's package ``singleflight``.

A leader that is stopped from outside (a cancelled task, a ``KeyboardInterrupt``) brings nothing.
Then one of those who wait takes over: somebody else's closed connection is no result.

The work is done outside the lock. Threads and tasks have a class each, since a thread that waits
must sleep and a task that waits must not hold up its loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


class ThreadFlights:
    """Shares work among threads. Do not ask for a key from within the work on that same key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, _ThreadFlight] = {}

    def share(self, key: str, work: Callable[[], T]) -> tuple[T, bool]:
        """The result of ``work()``, or of somebody else's; the flag says that it was another's.

        Raises:
            Exception: whatever the work raised; all who shared it get the same error.
        """
        while True:
            with self._lock:
                flight = self._under_way.get(key)
                if flight is None:
                    flight = self._under_way[key] = _ThreadFlight()
                    break
                landing = flight.landing()
            landing.wait()
            if flight.error is not None:
                raise flight.error
            if flight.landed:
                return flight.value, True
        return self._lead(key, flight, work), False

    def _lead(self, key: str, flight: _ThreadFlight, work: Callable[[], T]) -> T:
        try:
            value = work()
            flight.value, flight.landed = value, True
            return value
        except Exception as error:
            flight.error = error
            raise
        finally:
            with self._lock:
                del self._under_way[key]
            flight.wake()


class _ThreadFlight:
    __slots__ = ("_landing", "error", "landed", "value")

    def __init__(self) -> None:
        self.landed = False
        self.value: Any = None
        self.error: Exception | None = None
        self._landing: threading.Event | None = None

    def landing(self) -> threading.Event:
        """What to wait for; made only when somebody waits.  Needs the lock."""
        if self._landing is None:
            self._landing = threading.Event()
        return self._landing

    def wake(self) -> None:
        """After the flight was taken off the board, so nobody can begin to wait any more."""
        if self._landing is not None:
            self._landing.set()


class TaskFlights:
    """Shares work among the tasks of an event loop; loops in several threads each have their own.

    Nothing here waits between looking and deciding, so the loop itself is the lock.
    """

    def __init__(self) -> None:
        self._under_way: dict[tuple[asyncio.AbstractEventLoop, str], _TaskFlight] = {}

    async def share(self, key: str, work: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """As :meth:`ThreadFlights.share`; a caller that is cancelled harms nobody."""
        loop = asyncio.get_running_loop()
        while flight := self._under_way.get((loop, key)):
            landing = loop.create_future()
            flight.waiting.append(landing)
            await landing
            if flight.error is not None:
                raise flight.error
            if flight.landed:
                return flight.value, True
        flight = self._under_way[loop, key] = _TaskFlight()
        try:
            value = await work()
            flight.value, flight.landed = value, True
            return value, False
        except Exception as error:
            flight.error = error
            raise
        finally:
            del self._under_way[loop, key]
            for landing in flight.waiting:
                if not landing.done():
                    landing.set_result(None)


class _TaskFlight:
    __slots__ = ("error", "landed", "value", "waiting")

    def __init__(self) -> None:
        self.landed = False
        self.value: Any = None
        self.error: Exception | None = None
        self.waiting: list[asyncio.Future[None]] = []
