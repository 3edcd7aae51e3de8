"""What is asked during one turn of the event loop is answered together at its end.

Under load every turn finds several requests ready. Served one after the other, each runs through
all of the server's code, and the processor's caches hold that of the next stage when the next
request needs that of the first. Taken together, stage by stage, all but the first of them find warm
what they need, and the model is called once for all. Nobody waits for company that is not there
yet: alone in its turn, a request is answered alone, with no delay but a step of the loop.

The idea is *cohort scheduling* (Larus and Parkes, "Using Cohort Scheduling to Enhance Server
Performance", USENIX 2002), with the loop's turns as its stages. `MicroBatcher` is for a model that
is worth waiting for, and computes beside the loop; this is for one that takes microseconds, on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from companion.serving.batching.errors import BatchResultError

T = TypeVar("T")
R = TypeVar("R")


class Cohort(Generic[T, R]):
    """Asks `answer` once for all that was asked in a turn; belongs to one event loop.

    `answer` takes what was asked, one or more, and gives one result for each, in order. It runs on
    the loop and outside of any request's context: what it logs belongs to all of them.
    """

    def __init__(self, answer: Callable[[list[T]], Sequence[R]]) -> None:
        self._answer = answer
        self._asked: list[tuple[T, asyncio.Future[R]]] = []

    def ask(self, question: T) -> asyncio.Future[R]:
        """The result for `question`, to be awaited; who is cancelled before is not asked about.

        Awaiting it raises what `answer` raises, and `BatchResultError` if that gives another number
        of results; all of the turn hear of it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._answer_all, context=Context())
        self._asked.append((question, future))
        return future

    def _answer_all(self) -> None:
        asked, self._asked = self._asked, []
        waiting = [(question, future) for question, future in asked if not future.done()]
        if not waiting:
            return
        try:
            results = self._answer([question for question, _ in waiting])
            if len(results) != len(waiting):
                raise BatchResultError(len(waiting), len(results))
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers have to hear it
            for _, future in waiting:
                future.set_exception(error)
            return
        for (_, future), result in zip(waiting, results, strict=True):
            future.set_result(result)
