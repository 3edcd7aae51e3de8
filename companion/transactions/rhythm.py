"""When things happen: the daily and weekly rhythm of customers, and bursts of one thing.

A customer's day is one of three shapes (works by day, at home by day, works by night) shifted by
the customer's own minutes; weekends weigh more or less by customer. Fraud keeps other hours: it
comes in bursts that start at any time.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from companion.transactions.events import DAY, Bools, Floats, Ints
from companion.transactions.population import Customers

# How likely each hour of the day is, from midnight on; one row per rhythm.
DAYS = np.array(
    [
        [2, 1, 1, 1, 1, 2, 5, 9, 8, 5, 5, 7, 13, 10, 6, 6, 8, 14, 17, 15, 11, 8, 6, 4],
        [1, 1, 1, 1, 1, 2, 3, 5, 9, 13, 15, 14, 11, 9, 11, 12, 11, 9, 8, 7, 6, 4, 3, 2],
        [9, 7, 6, 6, 5, 5, 5, 6, 5, 3, 2, 2, 3, 4, 6, 8, 9, 9, 8, 8, 8, 9, 10, 10],
    ],
    dtype=float,
)
_HOURS_UP_TO: Floats = np.cumsum(DAYS / DAYS.sum(axis=1, keepdims=True), axis=1)


def own_minute(people: Customers, customer: Ints, days: int, rng: Generator) -> Floats:
    """A minute of the period for each entry of `customer`, by that customer's own rhythm.

    The first day is a Monday.
    """
    count = len(customer)
    weekday = np.arange(days) % 7
    weekends, workdays = np.flatnonzero(weekday >= 5), np.flatnonzero(weekday < 5)
    weight = people.weekend[customer] * len(weekends)
    on_weekend = rng.random(count) * (weight + len(workdays)) < weight
    day = np.where(on_weekend, _one_of(weekends, count, rng), _one_of(workdays, count, rng))
    row = people.rhythm[customer]
    # One search in all rows at once: row r holds the values from r to r + 1.
    flat = (_HOURS_UP_TO + np.arange(len(DAYS))[:, None]).ravel()
    place = np.searchsorted(flat, row + rng.random(count), side="right")
    hour = np.minimum(place - row * 24, 23)
    minute_of_day = (hour * 60 + rng.random(count) * 60 + people.shift[customer]) % DAY
    minute: Floats = day * DAY + minute_of_day
    return minute


def _one_of(days: Ints, count: int, rng: Generator) -> Ints:
    if len(days) == 0:  # a period of less than a week may have no weekend; none is then asked for
        return np.zeros(count, dtype=np.int64)
    return days[rng.integers(len(days), size=count)]


def runs(starts: Bools) -> tuple[Ints, Ints]:
    """Which run each event belongs to, and where in `starts` that run begins."""
    run: Ints = np.cumsum(starts, dtype=np.int64) - 1
    first: Ints = np.maximum.accumulate(np.where(starts, np.arange(len(starts)), 0))
    return run, first


def since_start(gap: Floats, starts: Bools) -> Floats:
    """Sum of the `gap`s within each run, 0 at its first event."""
    total = np.cumsum(np.where(starts, 0.0, gap))
    _, first = runs(starts)
    elapsed: Floats = total - total[first]
    return elapsed


def spread_out(count: int, rng: Generator) -> Floats:
    """`count` numbers from 0 to 1 in random order, one in each of `count` equal parts.

    Stratified, so that a handful of gangs does not by chance leave the end of the period, where
    models are tested, without any.
    """
    numbers: Floats = (rng.permutation(count) + rng.random(count)) / max(count, 1)
    return numbers


def bursts(
    count: int,
    days: int,
    rng: Generator,
    *,
    mean_size: float,
    gap: Callable[[int], Floats],
) -> tuple[Ints, Floats]:
    """Which burst each of `count` events belongs to, and its minute.

    Sizes are geometric around `mean_size`, `gap(count)` gives the minutes between events. A burst
    starts where it can also end within the period; one longer than the period is pressed into it.
    """
    starts = rng.random(count) < 1 / mean_size
    starts[:1] = True
    burst, _ = runs(starts)
    elapsed = since_start(gap(count), starts)
    length = np.zeros(burst[-1] + 1 if count else 0)
    np.maximum.at(length, burst, elapsed)
    period = float(days * DAY)
    pressed = np.minimum(1.0, period / np.maximum(length, 1.0))
    start = spread_out(len(length), rng) * np.maximum(0.0, period - length)
    minute: Floats = start[burst] + elapsed * pressed[burst]
    return burst, minute
