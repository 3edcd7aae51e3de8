"""Traffic against a backend that fails for a while, in virtual time.

Minutes of calls to a backend with latency, sporadic errors and outages are played in a fraction of
a second, with the callers overlapping as they do in life: a call that hangs for a second is under
way while fifty others begin. What stands between callers and backend (a circuit breaker, say) is
real code; only the time is not.

The idea is discrete-event simulation: events lie in a heap by their time, and the clock jumps from
one to the next. Calls are coroutines that give up control with `Pause`, so no event loop is needed.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from companion.instruments.clocks import FakeClock

SERVED, FAILED, REFUSED = "served", "failed", "refused"


class BackendDownError(ConnectionError):
    """The backend did not answer, or answered with an error."""


class Guard(Protocol):
    """What is measured: anything that passes a call on to the backend, or refuses to."""

    @property
    def state(self) -> Any: ...

    def acall(self, function: Callable[[], Awaitable[Any]], /) -> Coroutine[Any, Any, Any]: ...


class Pause:
    """Awaited inside a simulated call: give up control for so many seconds of virtual time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __await__(self) -> Generator[float, None, None]:
        yield self.seconds


class FlakyBackend:
    """A backend with latency, sporadic errors and outages.

    Args:
        clock: the time in seconds.
        rng: decides which healthy calls fail.
        latency: seconds that a healthy call takes.
        error_rate: share of healthy calls that fail, 0 to 1.
        outages: (from, to) in seconds; within them every call fails after `hang` seconds.
        hang: seconds until a call fails during an outage.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        rng: np.random.Generator,
        *,
        latency: float = 0.05,
        error_rate: float = 0.0,
        outages: Sequence[tuple[float, float]] = (),
        hang: float = 1.0,
    ) -> None:
        if not 0 <= error_rate <= 1:
            raise ValueError(f"error_rate is a share from 0 to 1, got {error_rate}")
        self.clock, self.rng = clock, rng
        self.latency, self.error_rate, self.outages, self.hang = latency, error_rate, outages, hang
        self.reached: list[float] = []

    def is_down(self, at: float) -> bool:
        return any(begin <= at < end for begin, end in self.outages)

    async def __call__(self) -> str:
        """Raises BackendDownError during an outage and for the sporadic errors."""
        began = self.clock()
        self.reached.append(began)
        if self.is_down(began):
            await Pause(self.hang)
            raise BackendDownError("no answer")
        await Pause(self.latency)
        if self.rng.random() < self.error_rate:
            raise BackendDownError("a sporadic error")
        return "score"


@dataclass(frozen=True)
class Traffic:
    """What happened. Times in seconds.

    `began` and `outcomes` have one entry per call, in the order of arrival; `reached` the times at
    which calls reached the backend; `states` the times at which the guard's state was seen to
    change, with the new state, beginning at 0; `until` the length of the simulation.
    """

    began: npt.NDArray[np.float64]
    outcomes: tuple[str, ...]
    reached: npt.NDArray[np.float64]
    states: tuple[tuple[float, str], ...]
    until: float

    def count(self, outcome: str) -> int:
        return self.outcomes.count(outcome)

    def reached_between(self, begin: float, end: float) -> int:
        return int(np.count_nonzero((self.reached >= begin) & (self.reached < end)))

    def time_in(self, state: str, begin: float = 0.0, end: float | None = None) -> float:
        """Seconds between `begin` and `end` in which the guard was in `state`."""
        end = self.until if end is None else end
        total = 0.0
        ends = [at for at, _ in self.states[1:]] + [self.until]
        for (since, name), to in zip(self.states, ends, strict=True):
            if name == state:
                total += max(0.0, min(to, end) - max(since, begin))
        return total


def play(
    guard: Guard, backend: FlakyBackend, clock: FakeClock, *, rate: float, seconds: float
) -> Traffic:
    """Send `rate` calls a second through `guard` to `backend` for `seconds`, evenly spaced.

    An error whose class is not `BackendDownError` counts as a refusal by the guard.

    Raises:
        ValueError: `rate` or `seconds` is not positive.
    """
    if rate <= 0 or seconds <= 0:
        raise ValueError(f"rate and seconds must be positive, got {rate=} and {seconds=}")
    start = clock()
    arrivals = np.arange(0, seconds, 1 / rate)
    outcomes = [""] * len(arrivals)
    states = [(0.0, _name(guard.state))]

    async def one_call(index: int) -> None:
        try:
            await guard.acall(backend)
            outcomes[index] = SERVED
        except BackendDownError:
            outcomes[index] = FAILED
        except Exception:  # noqa: BLE001  guards refuse with exceptions of their own
            outcomes[index] = REFUSED

    heap: list[tuple[float, int, Coroutine[Any, Any, None]]] = [
        (start + float(at), index, one_call(index)) for index, at in enumerate(arrivals)
    ]
    order = len(heap)
    while heap:
        at, _, call = heapq.heappop(heap)
        clock.advance(max(0.0, at - clock()))
        try:
            pause = call.send(None)
        except StopIteration:
            pass
        else:
            heapq.heappush(heap, (clock() + pause, order, call))
            order += 1
        if (state := _name(guard.state)) != states[-1][1]:
            states.append((clock() - start, state))
    return Traffic(
        began=arrivals,
        outcomes=tuple(outcomes),
        reached=np.array(backend.reached) - start,
        states=tuple(states),
        until=max(seconds, clock() - start),
    )


def _name(state: Any) -> str:
    return str(getattr(state, "value", state))
