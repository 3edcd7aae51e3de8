"""Telling listeners: nothing is lost between two threads."""

from __future__ import annotations

import threading

from companion.resilience import State, Transition
from companion.resilience.listeners import Listeners

FIRST = Transition(State.CLOSED, State.OPEN, at=1.0, reason="")
SECOND = Transition(State.OPEN, State.HALF_OPEN, at=2.0, reason="")


def test_a_transition_queued_just_before_the_teller_lets_go_is_told() -> None:
    heard: list[Transition] = []
    listeners = Listeners([heard.append])

    class JustTooLate:
        """A lock whose first release is preceded by another thread's whole visit."""

        def __init__(self) -> None:
            self.lock, self.visited = threading.Lock(), False

        def acquire(self, blocking: bool = True) -> bool:
            return self.lock.acquire(blocking)

        def release(self) -> None:
            if not self.visited:
                self.visited = True
                listeners.queue(SECOND)
                listeners.tell()
                assert heard == [FIRST], "the visitor does not wait"
            self.lock.release()

    listeners._telling = JustTooLate()  # type: ignore[assignment]
    listeners.queue(FIRST)
    listeners.tell()
    assert heard == [FIRST, SECOND]
