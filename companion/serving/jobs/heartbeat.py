"""A thread that keeps a lease while its worker is busy, and lets it go when the worker hangs.

A heartbeat proves that a *process* lives. That a lock was never released or a download never ended
it does not see: kept up blindly, it would hold a job "at 50 %" for ever, the very thing that leases
are against. So it also asks when work last got somewhere, and falls silent after `stuck_after`
seconds without; then the lease runs out and somebody else takes over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from companion.serving.jobs.errors import JobsUnavailableError, LeaseLostError
from companion.serving.jobs.homes import JobsHome
from companion.serving.jobs.job import Claim

logger = logging.getLogger(__name__)

_BEATS_A_LEASE = 3


class Heartbeat:
    """Renews the lease of `claim` three times a lease, inside a `with` block.

    `stuck_after` is in seconds of `clock` (monotonic) since the last `progressed()`.
    """

    def __init__(
        self,
        home: JobsHome,
        claim: Claim,
        *,
        stuck_after: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home = home
        self._claim = claim
        self._stuck_after = stuck_after
        self._clock = clock
        self._progressed = clock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def progressed(self) -> None:
        """Work has got somewhere."""
        self._progressed = self._clock()

    def beat(self) -> bool:
        """Renew the lease once, unless work hangs; whether to go on."""
        silent = self._clock() - self._progressed
        if silent > self._stuck_after:
            logger.error("job %s: no progress for %.0f s, lease let go", self._claim.id, silent)
            return False
        try:
            self._home.renew(self._claim)
        except LeaseLostError:
            return False  # the worker finds out at its next write
        except JobsUnavailableError as error:
            logger.warning("job %s: lease not renewed: %s", self._claim.id, error)
        return True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        try:
            while not self._over.wait(self._claim.lease / _BEATS_A_LEASE) and self.beat():
                pass
        finally:
            self._home.close()  # this thread's connection
