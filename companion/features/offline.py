"""Features over windows for a whole table at once: two searches in sorted columns, no loop.

The events stand in order of time, so "how many are at most w old" is one search in one sorted
column. Sort them by entity on top (stable, so time stays in order inside), and an entity's events
are neighbours whose positions ascend: a second search for (entity, position) finds where the
window begins among them. Counts are then differences of positions, and sums differences of running
totals, which are exact because they are whole numbers.

What it costs: a radix sort and a binary search per entity and window; no group is ever visited by
Python, and memory is a few columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from companion.features.definitions import MINUTE_US, WindowFeature, check_names
from companion.features.history import Floats, History, Ints, lacking
from companion.transactions import MissingColumnsError

_RADIX = 1 << 16


def window_values(transactions: pd.DataFrame, definitions: Iterable[WindowFeature]) -> pd.DataFrame:
    """Every feature of `definitions` for every row: rows × definitions as float64, index kept.

    The table is its own history: each row sees the rows before it in order of (time,
    transaction id), in whatever order they stand. Money comes out in the unit of its column.

    Raises:
        DefinitionError: two definitions have one name.
        MissingColumnsError: naming all columns that lack.
        InvalidValuesError: a time, an id or a number is missing, or too large to be summed.
        ConflictingEventError: one transaction id with two contents.
    """
    wanted = list(definitions)
    values = window_arrays(transactions, wanted)
    return pd.DataFrame(
        {feature.name: values[feature.name] for feature in wanted}, index=transactions.index
    )


def window_arrays(
    transactions: pd.DataFrame, definitions: Sequence[WindowFeature]
) -> dict[str, Floats]:
    """As `window_values`, but one array per name, which spares a copy."""
    check_names(definitions)
    missing = lacking(list(transactions.columns), definitions)
    if missing:
        raise MissingColumnsError(missing)
    history = History.of(transactions)
    values: dict[str, Floats] = {}
    windows = _Windows(history)
    for entity in dict.fromkeys(feature.entity for feature in definitions):
        group = _Group(windows, entity)
        for feature in definitions:
            if feature.entity == entity:
                values[feature.name] = group.values(feature)[history.event]
    return values


class _Windows:
    """Where, in order of time, windows begin; shared by all entities."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._older: dict[int, Ints] = {}

    def older(self, age_us: int) -> Ints:
        """By event: how many events of anybody are `age_us` old or older."""
        if age_us not in self._older:
            time = self.history.time
            self._older[age_us] = np.searchsorted(time, time - age_us, side="right")
        return self._older[age_us]


class _Group:
    """The events sorted by entity and then by time; arrays inside are in that order."""

    def __init__(self, windows: _Windows, entity: Sequence[str]) -> None:
        self._windows = windows
        self._history = windows.history
        codes, kinds = self._history.codes(entity)
        self._order = stable_order(codes, kinds)
        self._base = codes[self._order] * (len(codes) + 1)
        self._key = self._base + self._order
        self._begins: dict[int, Ints] = {}
        self._totals: dict[tuple[str | None, int], Ints] = {}

    def values(self, feature: WindowFeature) -> Floats:
        """`feature` of every event, in order of time."""
        first = self._begin(feature.delay_us + feature.window_us)
        if feature.needs_labels:
            end = self._begin(feature.delay_us)
        else:
            end = np.arange(len(first)) + int(feature.counts_current)
        value = self._aggregate(feature, first, end)
        placed = np.empty_like(value)
        placed[self._order] = value
        return placed

    def _aggregate(self, feature: WindowFeature, first: Ints, end: Ints) -> Floats:
        counted = end - first
        if feature.aggregate == "count":
            return counted.astype("float64")
        if feature.aggregate == "minutes_since":
            time = self._history.time[self._order]
            elapsed = (time - time[end - 1]) / MINUTE_US
            return np.where(counted > 0, elapsed, feature.neutral)
        total = self._total(feature)
        inside = total[end] - total[first]
        if feature.aggregate == "sum":
            return np.where(counted > 0, inside / feature.per_unit, feature.neutral)
        share = feature.per_unit if feature.aggregate == "mean" else 1
        mean = inside / np.maximum(counted * share, 1)
        return np.where(counted > 0, mean, feature.neutral)

    def _begin(self, age_us: int) -> Ints:
        """By event: the place of its entity's first event that is younger than `age_us`."""
        if age_us not in self._begins:
            older = self._windows.older(age_us)[self._order]
            self._begins[age_us] = np.searchsorted(self._key, self._base + older)
        return self._begins[age_us]

    def _total(self, feature: WindowFeature) -> Ints:
        """Running totals of what `feature` adds up, one longer than the events, 0 first."""
        unit = feature.delay_us if feature.column is None else feature.per_unit
        if (feature.column, unit) not in self._totals:
            if feature.column is None:
                added = self._history.reported_within(feature.delay_us).astype("int64")
            else:
                added = self._history.whole_numbers(feature.column, feature.per_unit)
            total = np.zeros(len(added) + 1, dtype=np.int64)
            np.cumsum(added[self._order], out=total[1:])
            self._totals[feature.column, unit] = total
        return self._totals[feature.column, unit]


def stable_order(codes: Ints, kinds: int) -> Ints:
    """`argsort(codes, kind="stable")` for whole numbers from 0 below `kinds`, by radix sort.

    NumPy sorts 16-bit numbers by radix, in linear time; larger ones go in digits of 16 bits, the
    last digit first (Knuth, *The Art of Computer Programming* 3, 5.2.5).
    """
    order = np.argsort((codes % _RADIX).astype(np.uint16), kind="stable")
    digits = codes // _RADIX
    while kinds > _RADIX:
        kinds = -(-kinds // _RADIX)
        digit = (digits % _RADIX).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
        digits //= _RADIX
    return order
