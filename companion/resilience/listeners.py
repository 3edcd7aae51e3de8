"""Telling listeners about transitions: in order, one at a time, and never under the breaker's lock.

A listener may be slow, may fail, and may itself steer the breaker.  So transitions are queued in
the order in which they happen, and told after the lock is free.  Whoever finds somebody telling
leaves its transition to them instead of waiting.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from companion.resilience.outcomes import Transition

logger = logging.getLogger(__name__)

Listener = Callable[[Transition], None]


class Listeners:
    """The listeners of one breaker and what they have not been told yet."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)
        self._untold: deque[Transition] = deque()
        self._telling = threading.Lock()

    def queue(self, transition: Transition) -> None:
        """Note a transition; the breaker's lock makes the order."""
        self._untold.append(transition)

    def tell(self) -> None:
        """Tell what is queued; what a listener raises is logged and goes no further."""
        # Looking again after letting go: somebody may have queued and left it to us meanwhile.
        while self._untold and self._telling.acquire(blocking=False):
            try:
                while self._untold:
                    self._tell_all(self._untold.popleft())
            finally:
                self._telling.release()

    def _tell_all(self, transition: Transition) -> None:
        for listener in self._listeners:
            try:
                listener(transition)
            except Exception:
                logger.exception("listener %r failed on %s", listener, transition)
