"""Compare several ways of doing one thing, side by side, in one run.

On a shared machine an absolute time says little: the processor's clock, the neighbours and
the caches drift while we measure.  So contenders take turns (A B A B …), which spreads the
drift over all of them, and each is summed up by its median round, which one slow round cannot
move.  Report ratios; keep absolute times for orientation.

A benchmark is a module that exposes ``TITLE: str`` and ``run() -> list[Row]``.
"""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measured number, as one line of a report.

    ``what`` names the situation, ``contender`` who was measured in it, ``value`` the number in
    ``unit``.  ``ratio`` compares with the situation's baseline (the module says which), and
    ``target`` states in words what the number should reach; both may be left out.
    """

    what: str
    contender: str
    value: float
    unit: str
    ratio: float | None = None
    target: str = ""


def side_by_side(
    contenders: Mapping[str, Callable[[], object]], *, rounds: int = 5, number: int = 1
) -> dict[str, float]:
    """Measure each contender and return its median time in **seconds per call**.

    Every round runs each contender once, in the mapping's order, ``number`` calls in a row with
    garbage collection off.  There is no warm-up call: a first call that pays for imports is one
    round among ``rounds``, and the median drops it.  The cost of the loop itself (about 10 ns a
    call) is in every figure.

    Raises:
        ValueError: no contenders, or ``rounds`` or ``number`` below 1.
    """
    if not contenders:
        raise ValueError("side_by_side needs at least one contender")
    if rounds < 1 or number < 1:
        raise ValueError(f"rounds and number must be at least 1, got {rounds=} and {number=}")
    timers = {name: timeit.Timer(call) for name, call in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, timer in timers.items():
            seconds[name].append(timer.timeit(number) / number)
    return {name: statistics.median(measured) for name, measured in seconds.items()}
