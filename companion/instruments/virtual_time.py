"""asyncio in virtual time: hours of sleeping and waiting pass in a blink, always the same way.

Where :class:`~companion.instruments.clocks.FakeClock` is for code that takes its clock as an
argument, this is for code that does not: `asyncio.sleep`, `asyncio.timeout`, whole applications run
unchanged on an event loop whose clock jumps to the next timer as soon as nothing else is to be
done. That is discrete-event simulation with asyncio's own heap of timers as the list of events.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["run_in_virtual_time", "virtual_now"]

T = TypeVar("T")


def run_in_virtual_time(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` to its end on an event loop of its own that begins at 0 s; its result.

    Only waiting on this loop is virtual. Work in threads and real I/O go unseen: the clock runs
    ahead of them. The loop lives in a thread of its own, so that this can be called where another
    loop runs already, as in a notebook.

    Raises:
        BaseException: whatever `coroutine` raised.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
                outcome.set_result(runner.run(coroutine))
        except BaseException as error:  # noqa: BLE001  it is raised again by who waits
            outcome.set_exception(error)

    threading.Thread(target=run, name="virtual-time", daemon=True).start()
    return outcome.result()


def virtual_now() -> float:
    """The time of the event loop that runs this, in seconds: `clock=virtual_now`."""
    return asyncio.get_running_loop().time()


class _JumpingSelector(selectors.BaseSelector):
    """Looks for what is ready, and instead of waiting for the rest adds the wait to `now`."""

    def __init__(self) -> None:
        self.now = 0.0
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:  # no timer is set: only another thread can go on
            return self._real.select(None)
        ready = self._real.select(0)
        if not ready:
            self.now += max(0.0, timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now
