"""The events of one entity in order, and how each aggregate is read from them.

A reader is made once for a definition and then asked for every transaction, so that what depends on
the definition alone (which aggregate, how far back) is decided once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import pandas as pd

from companion.features.definitions import ID, MINUTE_US, WindowFeature
from companion.features.history import InvalidValuesError

Transaction = Mapping[str, Any]
"""One row of a table of transactions: column → value."""

Sum = tuple[str, int]
"""A column and its `per_unit`: what is added up."""


@dataclass
class Past:
    """The events of one entity in order, with what is added up over them."""

    times: list[int] = field(default_factory=list)
    ids: list[Any] = field(default_factory=list)
    totals: dict[Sum, list[int]] = field(default_factory=dict)
    frauds: dict[int, list[int]] = field(default_factory=dict)
    """By label delay: the times of the events that were reported within it."""

    def place(self, time: int, event_id: Any) -> int:
        """How many events stand before the event `event_id` of `time`."""
        low = bisect_left(self.times, time)
        return bisect_left(self.ids, event_id, low, bisect_right(self.times, time, low))

    def insert(self, time: int, event_id: Any, added: Mapping[Sum, int]) -> None:
        """Put an event in its place, with its numbers in whole units."""
        place = self.place(time, event_id)
        self.times.insert(place, time)
        self.ids.insert(place, event_id)
        for key, amount in added.items():
            total = self.totals.setdefault(key, [0])
            total.insert(place + 1, total[place] + amount)
            for later in range(place + 2, len(total)):
                total[later] += amount

    def drop_until(self, time: int) -> None:
        """Forget the events up to `time`."""
        gone = bisect_right(self.times, time)
        del self.times[:gone], self.ids[:gone]
        for total in self.totals.values():
            del total[:gone]
        for reported in self.frauds.values():
            del reported[: bisect_right(reported, time)]


NOTHING = Past()
"""The past of who has none; not to be inserted into."""

Reader = Callable[[Past, int, int, Transaction], float]
"""A feature's value from the entity's past, the time and place in it of the event that asks, and
that event itself."""


def reader_of(feature: WindowFeature) -> Reader:
    """How `feature` is read."""
    if feature.aggregate == "risk":
        return _risk(feature)
    if feature.aggregate == "count":
        return _count(feature)
    if feature.aggregate == "minutes_since":
        return _minutes_since(feature)
    return _of_a_column(feature)


def to_number(transaction: Transaction, column: str) -> float:
    """The number in `column`. Raises `InvalidValuesError` for a missing or infinite one."""
    value = transaction[column]
    if is_missing(value) or not isfinite(value):
        raise InvalidValuesError(column, "a number is missing or infinite", [transaction[ID]])
    return float(value)


def whole(transaction: Transaction, column: str, per_unit: int) -> int:
    """The number in `column` in whole 1/per_unit, rounded half to even; raises as `to_number`."""
    return round(to_number(transaction, column) * per_unit)


def is_missing(value: object) -> bool:
    """What pandas.isna says of a scalar, in a fifth of the time."""
    # NaN and NaT differ from themselves.
    return value is None or value is pd.NA or value != value


def _risk(feature: WindowFeature) -> Reader:
    delay, window, neutral = feature.delay_us, feature.window_us, feature.neutral

    def read(past: Past, time: int, end: int, transaction: Transaction) -> float:
        until = time - delay
        counted = bisect_right(past.times, until) - bisect_right(past.times, until - window)
        if not counted:
            return neutral
        frauds = past.frauds.get(delay)
        if not frauds:
            return 0.0
        return (bisect_right(frauds, until) - bisect_right(frauds, until - window)) / counted

    return read


def _count(feature: WindowFeature) -> Reader:
    window, own = feature.window_us, int(feature.counts_current)

    def read(past: Past, time: int, end: int, transaction: Transaction) -> float:
        return float(end - bisect_right(past.times, time - window) + own)

    return read


def _minutes_since(feature: WindowFeature) -> Reader:
    window, neutral = feature.window_us, feature.neutral

    def read(past: Past, time: int, end: int, transaction: Transaction) -> float:
        if not end or past.times[end - 1] <= time - window:
            return neutral
        return (time - past.times[end - 1]) / MINUTE_US

    return read


def _of_a_column(feature: WindowFeature) -> Reader:
    window, neutral, own = feature.window_us, feature.neutral, int(feature.counts_current)
    column, per_unit = str(feature.column), feature.per_unit
    key, is_mean = (column, per_unit), feature.aggregate == "mean"

    def read(past: Past, time: int, end: int, transaction: Transaction) -> float:
        first = bisect_right(past.times, time - window)
        counted = end - first + own
        if not counted:
            return neutral
        total = past.totals.get(key, _NOTHING_YET)
        inside = total[end] - total[first]
        if own:
            inside += whole(transaction, column, per_unit)
        # As doubles, like NumPy: Python's own division of whole numbers rounds huge ones better.
        return float(inside) / float(counted * per_unit if is_mean else per_unit)

    return read


_NOTHING_YET = [0]
