"""Take the first step of a coroutine now, and wait only if it really has to wait.

Most requests are in memory before the application is called: asking for the body is then no waiting
at all, and a timer for it would cost more than the asking. So the coroutine is stepped once, by
hand. If that ended it, here is its result; if not, the rest can be awaited, under a time limit.

The idea is that of asyncio's eager tasks (Python 3.12), for one coroutine inside a task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from types import CoroutineType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Rest(Generic[T]):
    """What is left of a coroutine that has been stepped; awaited, it goes on and gives its result.

    To be awaited in the task in which it was begun, once.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], waiting_for: Any) -> None:
        self._coroutine = coroutine
        self._waiting_for = waiting_for

    def __await__(self) -> Generator[Any, Any, T]:
        # What `yield from` does (PEP 380), begun at the second step.
        coroutine, waiting_for = self._coroutine, self._waiting_for
        try:
            while True:
                try:
                    sent = yield waiting_for
                except GeneratorExit:
                    coroutine.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - it is the coroutine's to handle
                    waiting_for = coroutine.throw(error)
                else:
                    waiting_for = coroutine.send(sent)
        except StopIteration as end:
            result: T = end.value
            return result


def begin(awaitable: Awaitable[T]) -> tuple[bool, Any]:
    """(True, the result) if `awaitable` ends without waiting, else (False, its rest to be awaited).

    Raises what it raises in its first step. What is no coroutine is not begun.
    """
    if type(awaitable) is not CoroutineType:
        return False, awaitable
    try:
        waiting_for = awaitable.send(None)
    except StopIteration as end:
        return True, end.value
    return False, Rest(awaitable, waiting_for)
