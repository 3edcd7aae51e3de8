"""What a circuit breaker costs while all is well, beside the incumbents, in one run.

Ratios: a call to the fastest incumbent's, a block to purgatory's as its documentation writes it,
calls in threads to the same calls one after another, a large window to a small one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import purgatory
import pybreaker

from companion.instruments.benchmark import Row, side_by_side
from companion.resilience import CallWindow, CircuitBreaker, TimeWindow

TITLE = "Circuit breaker"

_THREADS = 10
_CALL_SECONDS = 0.1
_MANY_EVENTS = 20_000


def run() -> list[Row]:
    return [*_closed_call(), *_closed_block(), *_side_by_side_in_threads(), *_large_windows()]


def _work() -> int:
    return 1


def _closed_call() -> list[Row]:
    ours, theirs = CircuitBreaker(), pybreaker.CircuitBreaker()
    factory = purgatory.SyncCircuitBreakerFactory()
    incumbents: dict[str, Callable[[], object]] = {
        "purgatory, decorated": factory("decorated")(_work),
        "pybreaker, call": lambda: theirs.call(_work),
        "pybreaker, decorated": theirs(_work),
    }
    seconds = side_by_side(
        {
            "bare call": lambda: _work(),
            "ours, call": lambda: ours.call(_work),
            "ours, decorated": ours(_work),
            **incumbents,
        },
        rounds=31,
        number=10_000,
    )
    fastest = min(seconds[name] for name in incumbents)
    target = {"ours, call": "below 1 × the fastest incumbent"}
    return [
        Row("one call, CLOSED", name, took * 1e6, "µs", took / fastest, target.get(name, ""))
        for name, took in seconds.items()
    ]


def _closed_block() -> list[Row]:
    ours = CircuitBreaker()
    factory = purgatory.SyncCircuitBreakerFactory()
    held = factory.get_breaker("held")

    def in_our_guard() -> None:
        with ours.guard():
            _work()

    def in_their_block() -> None:
        with factory.get_breaker("by name"):
            _work()

    def in_their_held_block() -> None:
        with held:
            _work()

    seconds = side_by_side(
        {
            "ours, guard": in_our_guard,
            "purgatory, by name": in_their_block,
            # Has next to nothing to do: it takes no lock and keeps no window.
            "purgatory, breaker held": in_their_held_block,
        },
        rounds=31,
        number=10_000,
    )
    base = seconds["purgatory, by name"]
    return [
        Row("one with-block, CLOSED", name, took * 1e6, "µs", took / base)
        for name, took in seconds.items()
    ]


def _side_by_side_in_threads() -> list[Row]:
    ours, theirs = CircuitBreaker(), pybreaker.CircuitBreaker()

    def in_threads(call: Callable[[], object]) -> Callable[[], None]:
        def all_calls() -> None:
            with ThreadPoolExecutor(_THREADS) as pool:
                for done in [pool.submit(call) for _ in range(_THREADS)]:
                    done.result()

        return all_calls

    seconds = side_by_side(
        {
            "ours": in_threads(lambda: ours.call(time.sleep, _CALL_SECONDS)),
            "pybreaker": in_threads(lambda: theirs.call(time.sleep, _CALL_SECONDS)),
        },
        rounds=3,
    )
    one_by_one = _THREADS * _CALL_SECONDS
    what = f"{_THREADS} calls of {_CALL_SECONDS} s in {_THREADS} threads"
    target = {"ours": f"about {_CALL_SECONDS} s"}
    return [
        Row(what, name, took, "s", took / one_by_one, target.get(name, ""))
        for name, took in seconds.items()
    ]


def _large_windows() -> list[Row]:
    def filled(window: CallWindow | TimeWindow, events: int) -> Callable[[], object]:
        breaker = CircuitBreaker(window=window)
        for _ in range(events):
            breaker.call(_work)
        return lambda: breaker.call(_work)

    rows = []
    for kind, small, large in (
        ("last calls", CallWindow(100), CallWindow(_MANY_EVENTS)),
        ("last seconds", TimeWindow(3600), TimeWindow(3600)),
    ):
        seconds = side_by_side(
            {
                "100 events": filled(small, 100),
                f"{_MANY_EVENTS:,} events": filled(large, _MANY_EVENTS),
            },
            rounds=31,
            number=10_000,
        )
        base = seconds["100 events"]
        rows += [
            Row(f"one call, window of the {kind}", name, took * 1e6, "µs", took / base, target)
            for (name, took), target in zip(
                seconds.items(), ("", "about 1 × the small window"), strict=True
            )
        ]
    return rows
