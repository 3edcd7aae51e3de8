"""Whether this process may get traffic: checks, time-boxed and side by side, and what follows.

Three questions that are easily mixed up (Kubernetes documentation, *Liveness, Readiness, and
Startup Probes*):

* **alive?**  Would a restart help?  Only what a restart repairs belongs here, and no dependency
  is repaired by restarting who depends on it: :meth:`HealthRegistry.liveness` asks nobody.
* **ready?**  Can this process answer now?  *Critical* checks decide: what it alone needs, such as
  its model.  *Optional* ones are looked at and named, and nothing else: a cache that all replicas
  share fails for all of them at once, and taking every replica out of traffic turns a slower
  answer into none (Nygard, *Release It!*, second edition, 2018, on cascading failures).
* **started?**  Has it been ready once?  Until then nobody should judge whether it is alive.

A check that hangs costs one time limit, however many hang; a thread that hangs cannot be stopped,
so its check is not begun again until it has come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["CheckFailedError", "CheckResult", "HealthRegistry", "Liveness", "Readiness", "Startup"]

Check: TypeAlias = Callable[[], Awaitable[object] | object]

_LOG = logging.getLogger(__name__)


class CheckFailedError(Exception):
    """A check came back without an error, and said no."""


@dataclass(frozen=True)
class CheckResult:
    """How one check went.

    `error` is the name of the type of what it raised (`TimeoutError` where it took too long), None
    where it passed.  Never the message: it may hold addresses and passwords, and goes to the log.
    """

    name: str
    critical: bool
    error: str | None
    seconds: float

    @property
    def passed(self) -> bool:
        return self.error is None


@dataclass(frozen=True)
class Liveness:
    """The process answers; there is nothing else to say."""

    draining: bool


@dataclass(frozen=True)
class Readiness:
    """Whether traffic may come: every critical check passed and the process is not draining.

    `degraded`: an optional check failed.  `checks` in the order in which they were given; while
    draining, as they last were.
    """

    ready: bool
    degraded: bool
    draining: bool
    checks: tuple[CheckResult, ...]


@dataclass(frozen=True)
class Startup:
    """Whether the process has been ready once.  `checks` as they last were."""

    started: bool
    checks: tuple[CheckResult, ...]


class HealthRegistry:
    """The checks of one process, and whether it drains.  Belongs to one event loop.

    A check is a function without arguments.  It fails by raising, or by returning something false
    other than None.  An `async def` runs on the event loop and is cancelled after its time;
    anything else runs in a thread of its own, so that it may block.

    Args:
        checks: by name.
        critical: the names of those without which there is no answer.
        timeout: seconds that each check may take; they run side by side.
        fresh_for: seconds for which the results are used again, so that probes (and whoever else
            finds the address) do not hammer a dependency.  Probes that come while the checks run
            share them in any case.
        clock: monotonic seconds, for durations and freshness.

    Raises:
        ValueError: a setting that makes no sense; the message names it.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        critical: Collection[str],
        timeout: float = 0.3,
        fresh_for: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(critical, str):
            raise ValueError(f"critical is a collection of names, got {critical!r}")
        if unknown := sorted(set(critical) - set(checks)):
            raise ValueError(f"critical names checks that do not exist: {', '.join(unknown)}")
        if not 0 < timeout < math.inf:
            raise ValueError(f"timeout is a positive number of seconds, got {timeout}")
        if not 0 <= fresh_for < math.inf:
            raise ValueError(f"fresh_for is a number of seconds from 0, got {fresh_for}")
        self._checks = dict(checks)
        self._critical = frozenset(critical)
        self._timeout = timeout
        self._fresh_for = fresh_for
        self._clock = clock
        self._draining = False
        self._started = False
        self._results: tuple[CheckResult, ...] = ()
        self._seen_at = -math.inf
        self._round: asyncio.Task[tuple[CheckResult, ...]] | None = None
        self._under_way: set[str] = set()

    def liveness(self) -> Liveness:
        """Whether a restart would help: never, as long as this can be called.

        Answer it from the event loop itself, and what it does notice is a loop that stands still.
        """
        return Liveness(self._draining)

    async def readiness(self) -> Readiness:
        """Run the checks, unless their results are fresh, and say whether traffic may come.

        Takes `timeout` seconds at most.  While draining, no check runs.

        Raises:
            BaseException: what a check raised that is no `Exception` (`KeyboardInterrupt`,
                `SystemExit`): it is meant for the process, not for the probe.
        """
        if not self._draining:
            await self._look()
        return Readiness(
            ready=not self._draining and self._critical_passed(),
            degraded=any(not check.passed and not check.critical for check in self._results),
            draining=self._draining,
            checks=self._results,
        )

    async def startup(self) -> Startup:
        """Whether the critical checks have all passed once; from then on without asking again."""
        if not self._started and not self._draining:
            await self._look()
        return Startup(self._started, self._results)

    def drain(self) -> None:
        """From now on: alive, and not ready.  May be called from a signal handler, and twice.

        Call it when the process is told to stop, and go on answering until the load balancer has
        noticed.
        """
        self._draining = True

    def _critical_passed(self) -> bool:
        return all(check.passed for check in self._results if check.critical)

    async def _look(self) -> None:
        if self._clock() - self._seen_at < self._fresh_for:
            return
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._run_all())
        # Shielded: a probe that gives up must not end the checks for all others that wait for them.
        await asyncio.shield(self._round)

    async def _run_all(self) -> tuple[CheckResult, ...]:
        self._results = tuple(await asyncio.gather(*map(self._run, self._checks)))
        self._seen_at = self._clock()
        self._started = self._started or self._critical_passed()
        return self._results

    async def _run(self, name: str) -> CheckResult:
        begun = self._clock()
        error: Exception | None = None
        try:
            await self._within_time(name)
        except Exception as caught:  # noqa: BLE001  a check may fail in any way
            error = caught
        result = CheckResult(
            name=name,
            critical=name in self._critical,
            error=None if error is None else type(error).__name__,
            seconds=self._clock() - begun,
        )
        self._tell_of_changes(result, error)
        return result

    async def _within_time(self, name: str) -> None:
        if name in self._under_way:
            raise TimeoutError("an earlier run has not come back yet")
        call = asyncio.create_task(self._call(name))
        # Not asyncio.timeout: it would wait for a check that ignores its cancellation.
        done, _ = await asyncio.wait({call}, timeout=self._timeout)
        if not done:
            call.add_done_callback(_take_error)
            call.cancel()
            raise TimeoutError(f"no result after {self._timeout} s")
        answer = call.result()
        if answer is not None and not answer:
            raise CheckFailedError(f"it returned {answer!r}")

    async def _call(self, name: str) -> object:
        check = self._checks[name]
        answer = check() if _is_async(check) else await self._in_a_thread(name, check)
        if not inspect.isawaitable(answer):
            return answer
        self._under_way.add(name)
        try:
            return await answer
        finally:
            self._under_way.discard(name)

    def _in_a_thread(self, name: str, check: Check) -> asyncio.Future[object]:
        """The future of `check()`, in a thread that keeps nobody from leaving.

        The threads of an executor would: the interpreter waits for them at its end, hung or not.
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[object] = loop.create_future()

        def run() -> None:
            answer: object = None
            error: BaseException | None = None
            try:
                answer = check()
            except StopIteration as caught:  # a future cannot carry it
                error = RuntimeError(f"the check raised {caught!r}")
            except BaseException as caught:  # noqa: BLE001  the event loop decides what to do
                error = caught
            self._under_way.discard(name)
            with contextlib.suppress(RuntimeError):  # the loop has ended, nobody waits
                loop.call_soon_threadsafe(_settle, outcome, answer, error)

        self._under_way.add(name)
        try:
            threading.Thread(target=run, name=f"health-{name}", daemon=True).start()
        except RuntimeError:  # no thread to be had, so none will take the mark away
            self._under_way.discard(name)
            raise
        return outcome

    def _tell_of_changes(self, result: CheckResult, error: Exception | None) -> None:
        """Log a check that fails, or fails otherwise, or passes again; once, not at each probe."""
        before = {check.name: check.error for check in self._results}.get(result.name)
        if result.error == before:
            return
        if error is None:
            _LOG.info("health check %s passes again", result.name)
        else:
            _LOG.warning("health check %s fails: %s: %r", result.name, result.error, str(error))


def _is_async(check: Check) -> bool:
    return inspect.iscoroutinefunction(check) or inspect.iscoroutinefunction(
        getattr(check, "__call__", None)  # noqa: B004  an object with an async __call__
    )


def _settle(outcome: asyncio.Future[object], answer: object, error: BaseException | None) -> None:
    if outcome.done():  # given up in the meantime
        return
    if error is None:
        outcome.set_result(answer)
    else:
        outcome.set_exception(error)


def _take_error(call: asyncio.Future[object]) -> None:
    """Look at the error of a call that nobody waits for, or asyncio complains about it."""
    if not call.cancelled():
        call.exception()
