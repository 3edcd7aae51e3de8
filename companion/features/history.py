"""A table of transactions read as a history: in order of time, each event once, in whole numbers.

Everything that could make two computations differ is settled here: the order of events (time,
then transaction id; without ids, the order of rows), what happens to an event that stands in the
table twice (it counts once, and both rows get its value), times as whole microseconds in UTC,
amounts as whole cents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.features.definitions import ID, LABEL_TIME, TIME, WindowFeature
from companion.transactions import LABEL

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_LARGEST_SUM = 2**62


class InvalidValuesError(ValueError):
    """`column` holds values that no feature can be made of; `rows` are the first such rows."""

    def __init__(self, column: str, reason: str, rows: Sequence[object]) -> None:
        super().__init__(f"{column}: {reason}, first in row {', '.join(map(str, rows))}")
        self.column = column
        self.rows = tuple(rows)


class ConflictingEventError(ValueError):
    """The transaction `event_id` is there twice with different content: which one happened?"""

    def __init__(self, event_id: object) -> None:
        super().__init__(f"transaction {event_id!r} is there twice, with different content")
        self.event_id = event_id


def lacking(columns: Sequence[str], definitions: Sequence[WindowFeature]) -> list[str]:
    """The columns that `definitions` are made of and `columns` does not have.

    A risk needs `label_time` or, where there is none, `is_fraud`.
    """
    needed = dict.fromkeys(name for feature in definitions for name in feature.columns)
    missing = [name for name in needed if name not in columns]
    unlabelled = LABEL not in columns and LABEL_TIME not in columns
    if unlabelled and any(feature.needs_labels for feature in definitions):
        missing.append(LABEL)
    return missing


def microseconds(transactions: pd.DataFrame, column: str = TIME) -> Ints:
    """The times of `column` as microseconds since 1970 in UTC; a time without a zone is in UTC.

    Raises `InvalidValuesError` for a missing time and `TypeError` for what are no times.
    """
    times = transactions[column]
    if not pd.api.types.is_datetime64_any_dtype(times.dtype):
        raise TypeError(f"{column} must hold times (datetime64), not {times.dtype}")
    _refuse(transactions, column, times.isna().to_numpy(), "a time is missing")
    if times.dt.tz is not None:
        times = times.dt.tz_convert("UTC").dt.tz_localize(None)
    return times.to_numpy().astype("datetime64[us]").astype("int64")


def numbers(transactions: pd.DataFrame, column: str) -> Floats:
    """`column` as float64. Raises `InvalidValuesError` for what is missing or infinite."""
    values = transactions[column].to_numpy(dtype="float64", na_value=np.nan)
    _refuse(transactions, column, ~np.isfinite(values), "a number is missing or infinite")
    return values


def whole(values: Floats, per_unit: int) -> Ints:
    """`values` in whole 1/per_unit, rounded half to even: euros to cents with 100."""
    return np.rint(values * per_unit).astype("int64")


@dataclass(frozen=True)
class History:
    """The events of a table in order of (time, id); arrays are by event unless said otherwise."""

    transactions: pd.DataFrame
    row: Ints
    """The table row of each event; of repeated rows, the first."""
    event: Ints
    """By table row: the position of its event."""
    time: Ints
    """Microseconds since 1970, ascending."""

    @classmethod
    def of(cls, transactions: pd.DataFrame) -> History:
        """Read `transactions`.

        Raises:
            InvalidValuesError: a time or an id is missing.
            ConflictingEventError: two rows have one id and differ.
        """
        time = microseconds(transactions)
        ids = _ids(transactions)
        if _ascends(time, ids):
            row = np.arange(len(time))
            return cls(transactions, row, row, time)
        order = np.lexsort((ids, time))
        sorted_ids = ids[order]
        repeats = np.zeros(len(order), dtype=bool)
        repeats[1:] = (np.diff(sorted_ids) == 0) & (np.diff(time[order]) == 0)
        event = np.empty(len(order), dtype=np.int64)
        event[order] = np.cumsum(~repeats) - 1
        row = order[~repeats]
        _refuse_conflicts(transactions, ids, row, event)
        return cls(transactions, row, event, time[row])

    def codes(self, entity: Sequence[str]) -> tuple[Ints, int]:
        """Each event's entity as a number from 0 up, and how many there are."""
        first, *others = entity
        codes, count = self._codes_of(first)
        for column in others:
            more, times = self._codes_of(column)
            pairs, kinds = pd.factorize(codes * times + more)
            codes, count = pairs.astype("int64"), len(kinds)
        return codes, count

    def whole_numbers(self, column: str, per_unit: int) -> Ints:
        """`column` in whole 1/per_unit; `InvalidValuesError` for what could overflow a sum."""
        values = numbers(self.transactions, column)
        largest = _LARGEST_SUM / max(1, len(values)) / per_unit
        _refuse(self.transactions, column, np.abs(values) > largest, "too large to be summed")
        return whole(values, per_unit)[self.row]

    def reported_within(self, delay_us: int) -> Bools:
        """Which events were reported as fraud at most `delay_us` after they happened.

        Without a column `label_time`, every fraud is taken to have been.
        """
        if LABEL_TIME not in self.transactions.columns:
            return numbers(self.transactions, LABEL)[self.row] > 0
        return self._reported_after <= delay_us

    @cached_property
    def _reported_after(self) -> Ints:
        never = np.iinfo(np.int64).max
        reported = self.transactions[LABEL_TIME].notna().to_numpy()
        after = np.full(len(reported), never)
        if reported.any():  # a column without any time may be of any type
            after[reported] = microseconds(self.transactions.loc[reported], LABEL_TIME)
        after = after[self.row]
        known = after != never
        after[known] -= self.time[known]
        return after

    def _codes_of(self, column: str) -> tuple[Ints, int]:
        codes, kinds = pd.factorize(self.transactions[column])
        _refuse(self.transactions, column, codes < 0, "an id is missing")
        return codes.astype("int64")[self.row], len(kinds)


def _ids(transactions: pd.DataFrame) -> Ints:
    """Whole numbers in the order of the ids; without ids, the rows' own numbers."""
    if ID not in transactions.columns:
        return np.arange(len(transactions))
    ids = transactions[ID]
    if isinstance(ids.dtype, np.dtype) and ids.dtype.kind == "i":
        return ids.to_numpy(dtype="int64")
    codes, _ = pd.factorize(ids, sort=True)
    _refuse(transactions, ID, codes < 0, "an id is missing")
    return codes.astype("int64")


def _ascends(time: Ints, ids: Ints) -> bool:
    """Whether rows are in order and no id can be there twice; says no rather than search."""
    return bool(np.all(np.diff(ids) > 0) and np.all(np.diff(time) >= 0))


def _refuse_conflicts(transactions: pd.DataFrame, ids: Ints, row: Ints, event: Ints) -> None:
    unique = pd.Index(ids[row])
    if not unique.is_unique:
        raise ConflictingEventError(
            transactions[ID].iloc[int(row[np.flatnonzero(unique.duplicated())[0]])]
        )
    again = np.flatnonzero(row[event] != np.arange(len(event)))
    repeated, original = transactions.iloc[again], transactions.iloc[row[event[again]]]
    for column in transactions.columns:
        first, second = original[column].reset_index(drop=True), repeated[column]
        differs = ~_same(first, second.reset_index(drop=True))
        if differs.any():
            raise ConflictingEventError(repeated[ID].iloc[int(np.argmax(differs))])


def _same(first: pd.Series[Any], second: pd.Series[Any]) -> Bools:
    """Where two columns agree, missing values being equal to one another."""
    agree = (first == second) | (first.isna() & second.isna())
    return agree.to_numpy(dtype=bool)


def _refuse(transactions: pd.DataFrame, column: str, wrong: Bools, reason: str) -> None:
    if wrong.any():
        raise InvalidValuesError(
            column, reason, transactions.index[np.flatnonzero(wrong)[:3]].tolist()
        )
