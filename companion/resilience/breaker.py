"""A circuit breaker: stop calling what keeps failing, and find out gently when it is back.

The pattern is Nygard's (*Release It!*, ch. 5): calls pass while the circuit is closed; too many
failures open it, and callers are refused at once instead of piling up; after a while a few
probes decide whether it closes again.  What "too many" means follows Hystrix and resilience4j: a
rate over a rolling window, with a minimum of calls.

Three decisions carry the rest:

* The caller's function runs *between* two short visits to the lock, never inside one.
* A result counts only in the phase in which its call began (:mod:`companion.resilience.phases`).
* Only success and the failures named by ``counts`` are evidence.  Anything else (ignored
  exceptions, cancellation, ``KeyboardInterrupt``) says nothing about the backend.

A breaker bounds a *stream* of calls; each call still needs a timeout of its own, inside.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar

from companion.resilience.guard import Guard
from companion.resilience.listeners import Listener, Listeners
from companion.resilience.outcomes import CircuitOpenError, Snapshot, Transition
from companion.resilience.phases import (
    Closed,
    Disabled,
    ForcedOpen,
    HalfOpen,
    Limits,
    Open,
    Permit,
    Phase,
    State,
    Verdict,
)
from companion.resilience.window import CallWindow, TimeWindow

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger(__name__)


class _MisuseError(TypeError):
    """The function does not fit the method; its call is no evidence about the backend."""


_SAYS_NOTHING = (CancelledError, _MisuseError)


class CircuitBreaker:
    """Guards calls to one backend; one breaker serves threads and event loops together.

    Use it as ``breaker.call(fn, …)``, ``await breaker.acall(fn, …)``, ``@breaker`` on a ``def`` or
    an ``async def``, or ``[async] with breaker.guard() as permit:``.

    Args:
        failure_rate: share of failed calls (above 0, at most 1) in the window that opens it.
        min_calls: how many calls the window must hold before any rate is looked at.
        window: :class:`CallWindow` or :class:`TimeWindow`.
        slow_call_duration: seconds from which a call is slow; ``None`` to look at no durations.
        slow_call_rate: share of slow calls (above 0, at most 1) that opens it.
        open_for: seconds that it stays open, or a function from how often it opened in a row
            (1, 2, …) to seconds.  The function is tried once here; if it fails later, that is
            logged and the period before holds again.
        half_open_permits: how many probes decide, by the same rates, whether it closes.
        half_open_timeout: seconds after which a probe that has not come back counts as failed, as
            soon as somebody else calls.
        counts: exception types that are failures.  All others say nothing, like ``ignore``.
        ignore: exception types that say nothing although ``counts`` covers them.
        failed_result: tells from a result whether the call failed after all; what it raises is
            taken as raised by the call.
        listeners: called with each :class:`Transition`, outside the lock and in order, by the
            thread that caused it or by one that was just telling another.  What they raise is
            logged.
        clock: monotonic seconds.
        name: for messages and listeners.

    Raises:
        ValueError: a setting that makes no sense; the message names it.
    """

    def __init__(
        self,
        *,
        failure_rate: float = 0.5,
        min_calls: int = 10,
        window: CallWindow | TimeWindow = CallWindow(100),  # noqa: B008 - immutable
        slow_call_duration: float | None = None,
        slow_call_rate: float = 1.0,
        open_for: float | Callable[[int], float] = 30.0,
        half_open_permits: int = 1,
        half_open_timeout: float = 30.0,
        counts: tuple[type[Exception], ...] = (Exception,),
        ignore: tuple[type[Exception], ...] = (),
        failed_result: Callable[[Any], bool] | None = None,
        listeners: Sequence[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
        name: str = "",
    ) -> None:
        _require(0 < failure_rate <= 1, "failure_rate is above 0, at most 1", failure_rate)
        _require(0 < slow_call_rate <= 1, "slow_call_rate is above 0, at most 1", slow_call_rate)
        _require(min_calls >= 1, "min_calls is at least 1", min_calls)
        _require(
            not isinstance(window, CallWindow) or min_calls <= window.size,
            "min_calls fits into the window, or it would never open",
            min_calls,
        )
        _require(
            slow_call_duration is None or 0 < slow_call_duration < math.inf,
            "slow_call_duration is a positive number of seconds or None",
            slow_call_duration,
        )
        _require(half_open_permits >= 1, "half_open_permits is at least 1", half_open_permits)
        _require(
            0 < half_open_timeout < math.inf,
            "half_open_timeout is a positive number of seconds",
            half_open_timeout,
        )
        _require(_are_exceptions(counts), "counts is a tuple of Exception types", counts)
        _require(_are_exceptions(ignore), "ignore is a tuple of Exception types", ignore)
        _require(
            not any(inspect.iscoroutinefunction(listener) for listener in listeners),
            "listeners are plain functions, nobody would await them",
            listeners,
        )
        self.name = name
        self._clock = clock
        self._window = window
        self._limits = Limits(failure_rate, slow_call_rate)
        self._min_calls = min_calls
        self._slow_from = math.inf if slow_call_duration is None else slow_call_duration
        self._needs_time = slow_call_duration is not None or isinstance(window, TimeWindow)
        self._open_for = open_for if callable(open_for) else _always(open_for)
        self._open_period = _seconds(self._open_for(1))
        self._half_open_permits = half_open_permits
        self._half_open_timeout = half_open_timeout
        self._counts = counts
        self._ignore = ignore + _SAYS_NOTHING
        self._failed_result = failed_result
        self._listeners = Listeners(listeners)
        self._lock = threading.Lock()
        self._phase: Phase = self._closed(clock())
        self._standing = self._phase.standing

    # ----- calling ---------------------------------------------------------------------------

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return ``fn(*args, **kwargs)``, or refuse.

        Raises:
            CircuitOpenError: the circuit is open, or half-open with all permits given.
            TypeError: ``fn`` returned a coroutine; it belongs to :meth:`acall`.
            Exception: whatever ``fn`` or ``failed_result`` raised, unchanged.
        """
        permit = self._standing or self._admit()
        begun = self._clock() if self._needs_time else 0.0
        try:
            result = fn(*args, **kwargs)
            if result.__class__ is CoroutineType:
                result.close()  # type: ignore[attr-defined]
                raise _MisuseError(f"{fn!r} is a coroutine function: await acall(…) instead")
            failed = self._failed_result is not None and bool(self._failed_result(result))
        except BaseException as error:
            self._settle(permit, begun, self._is_failure(error))
            raise
        self._settle(permit, begun, failed)
        return result

    async def acall(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return ``await fn(*args, **kwargs)``, or refuse, as :meth:`call` does.

        Put the timeout inside ``fn``.  Around ``acall`` it would arrive here as a cancellation,
        which says nothing, and a backend that hangs would never open the circuit.

        Raises:
            TypeError: what ``fn`` returned cannot be awaited; it belongs to :meth:`call`.
        """
        permit = self._standing or self._admit()
        begun = self._clock() if self._needs_time else 0.0
        try:
            pending = fn(*args, **kwargs)
            if not inspect.isawaitable(pending):
                raise _MisuseError(f"{fn!r} returned nothing to await: use call(…) instead")
            result = await pending
            failed = self._failed_result is not None and bool(self._failed_result(result))
        except BaseException as error:
            self._settle(permit, begun, self._is_failure(error))
            raise
        self._settle(permit, begun, failed)
        return result

    def __call__(self, fn: F) -> F:
        """Decorate ``fn``, a ``def`` or an ``async def``.

        Raises:
            TypeError: ``fn`` is a generator function: its work begins after the call returned.
        """
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(f"a breaker cannot judge the generator function {fn!r}")
        if inspect.iscoroutinefunction(fn):

            @functools.wraps(fn)
            async def guarded_async(*args: Any, **kwargs: Any) -> Any:
                return await self.acall(fn, *args, **kwargs)

            return guarded_async  # type: ignore[return-value]

        @functools.wraps(fn)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            return self.call(fn, *args, **kwargs)

        return guarded  # type: ignore[return-value]

    def guard(self) -> Guard:
        """A context manager for one block, sync or async; each block needs one of its own."""
        return Guard(self)

    # ----- steering and looking --------------------------------------------------------------

    def force_open(self) -> None:
        """Refuse every call until :meth:`reset` or :meth:`disable`."""
        self._replace(None, ForcedOpen(self._clock()), "forced open")

    def disable(self) -> None:
        """Let every call pass, uncounted, until :meth:`reset` or :meth:`force_open`."""
        self._replace(None, Disabled(self._clock()), "disabled")

    def reset(self) -> None:
        """Close the circuit and forget everything, calls under way included."""
        self._replace(None, self._closed(self._clock()), "reset")

    @property
    def state(self) -> State:
        """The state now.  OPEN lasts until the first call after the open period, not a timer."""
        return self._phase.state

    def snapshot(self) -> Snapshot:
        """Everything at one moment; looking changes nothing."""
        now = self._clock()
        with self._lock:
            phase = self._phase
            calls, failures, slow, probes = phase.totals(now)
            retry_after = phase.retry_after(now)
        return Snapshot(
            name=self.name,
            state=phase.state,
            since=phase.since,
            calls=calls,
            failures=failures,
            slow=slow,
            openings=phase.openings,
            probes=probes,
            retry_after=retry_after,
        )

    # ----- between the caller and the phases -------------------------------------------------

    def _admit(self) -> Permit:
        """A permit where one has to ask for it."""
        while True:
            now = self._clock()
            with self._lock:
                phase = self._phase
                due = phase.overdue(now)
                permit = None if due else phase.admit(now)
                retry_after = phase.retry_after(now)
            if due:
                self._move(phase, due)
            elif permit:
                return permit
            else:
                raise CircuitOpenError(retry_after, phase.state, self.name)

    def _settle(self, permit: Permit, begun: float, failed: bool | None) -> None:
        """Hand a permit back with what its call says: failed, succeeded, or nothing."""
        now, slow = 0.0, False
        if self._needs_time:
            now = self._clock()
            slow = now - begun >= self._slow_from
        phase = permit.phase
        # `with` costs 0.1 µs more than acquire and release, but only it is safe against a
        # KeyboardInterrupt right after the lock was taken.
        with self._lock:
            if phase is not self._phase:
                return
            verdict = phase.record(permit, failed, slow, now)
        if verdict:
            self._move(phase, verdict)

    def _is_failure(self, error: BaseException) -> bool | None:
        if isinstance(error, self._counts) and not isinstance(error, self._ignore):
            return True
        return None

    # ----- between the phases ----------------------------------------------------------------

    def _closed(self, now: float) -> Closed:
        return Closed(now, self._window.counter(), self._limits, self._min_calls)

    def _move(self, phase: Phase, verdict: Verdict) -> None:
        """Carry out a verdict, unless somebody was faster."""
        now = self._clock()
        following: Phase
        if verdict.state is State.OPEN:
            openings = phase.openings + 1
            following = Open(now, openings, now + self._period(openings))
        elif verdict.state is State.HALF_OPEN:
            following = HalfOpen(
                now, phase.openings, self._half_open_permits, self._half_open_timeout, self._limits
            )
        else:
            following = self._closed(now)
        self._replace(phase, following, verdict.reason)

    def _period(self, openings: int) -> float:
        """How long to stay open.  Runs the caller's function, so never under the lock."""
        try:
            self._open_period = _seconds(self._open_for(openings))
        except Exception:
            logger.exception("open_for(%d) failed, keeping %s s", openings, self._open_period)
        return self._open_period

    def _replace(self, expected: Phase | None, following: Phase, reason: str) -> None:
        """Begin a phase if ``expected`` (``None``: whichever) is still in place, and tell."""
        with self._lock:
            before = self._phase
            if expected is not None and before is not expected:
                return
            self._phase = following
            self._standing = following.standing
            if before.state is not following.state:
                self._listeners.queue(
                    Transition(before.state, following.state, following.since, reason, self.name)
                )
        self._listeners.tell()


def _require(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{rule}; got {value!r}")


def _are_exceptions(kinds: object) -> bool:
    return isinstance(kinds, tuple) and all(
        isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds
    )


def _always(seconds: float) -> Callable[[int], float]:
    return lambda openings: seconds


def _seconds(period: float) -> float:
    _require(0 < period < math.inf, "open_for is, or returns, a positive number of seconds", period)
    return float(period)
