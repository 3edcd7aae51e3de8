"""What to decide while the server that should decide is down.

Somebody must choose between a limit that is not kept and a service that is not there, before it
happens. *Open*: every hit is allowed; right where the limit protects an invoice. *Closed*: none is;
right where it protects a password. *Local*: this process keeps the limit for itself; so many
processes, so many times the limit, which protects the machine at least.

Whichever it is, callers must not wait for it: the server is given one short time to answer and no
second try, and after a failure it is left alone for a while by the house's own circuit breaker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Literal, get_args

from redis.exceptions import RedisError

from companion.resilience.breaker import CircuitBreaker
from companion.resilience.limiting.algorithm import Algorithm
from companion.resilience.limiting.decisions import Decision
from companion.resilience.limiting.memory import MemoryStore
from companion.resilience.outcomes import Transition
from companion.resilience.phases import State
from companion.resilience.window import CallWindow

WhenDown = Literal["open", "closed", "local"]

FAILURES = (RedisError, OSError)
"""What counts as the server's fault. `TimeoutError` is an `OSError`."""

logger = logging.getLogger(__name__)


class Outage:
    """The breaker in front of a server, and what is decided behind its back.

    Args:
        server: its name in the log.
        when_down: ``"open"``, ``"closed"`` or ``"local"``.
        rest: seconds for which the server is left alone after a failure.
        clock: monotonic seconds.

    Raises:
        ValueError: another ``when_down``.
    """

    def __init__(
        self,
        server: str,
        when_down: WhenDown,
        rest: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if when_down not in get_args(WhenDown):
            raise ValueError(f"when_down is one of {get_args(WhenDown)}, got {when_down!r}")
        self._server = server
        self._when_down = when_down
        self._reported = False
        self._rest = rest
        self._clock = clock
        self.breaker = CircuitBreaker(
            failure_rate=1.0,
            min_calls=1,
            window=CallWindow(1),
            open_for=rest,
            counts=FAILURES,
            listeners=(self._tell,),
            clock=clock,
            name=server,
        )

    @property
    def down(self) -> bool:
        """Whether decisions are made without the server just now."""
        return self.breaker.state is not State.CLOSED

    def stand_in(self, algorithm: Algorithm[Any]) -> Callable[[str, float], Decision]:
        """What decides in the server's place."""
        burst, rest = algorithm.limit.burst, self._rest
        if self._when_down == "open":
            return lambda key, cost: Decision(True, burst, burst, 0.0, 0.0)
        if self._when_down == "closed":
            return lambda key, cost: Decision(False, burst, 0.0, rest, rest)
        return MemoryStore(self._clock).bind(algorithm)

    def report(self, error: Exception) -> None:
        """Log why the server was given up, once an outage."""
        if not self._reported:
            self._reported = True
            kind = type(error).__name__
            logger.warning(
                "%s is down, limits are %s: %s: %s", self._server, self._when_down, kind, error
            )

    def _tell(self, transition: Transition) -> None:
        if transition.after is State.CLOSED:
            self._reported = False
            logger.warning("limits are kept by %s again", self._server)
