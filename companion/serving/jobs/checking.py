"""Each row of a batch checked as a transaction, a column at a time.

A request with a wrong value is refused; a file of a million rows is not, for one of them. So every
row gets a verdict of its own: the number of the first rule that it breaks, or 0. The rules are
those of a single request (`companion.serving.schemas`: finite, in range, no guessing: "007" is no
id, 12:00 without an offset is no moment), applied to whole columns, since a million Python objects
would cost more than the model does. A property test holds the two to the same verdicts.

CSV brings text and Parquet types. A type of which no row can be right is the file's fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from companion.serving.jobs.errors import ColumnTypeError
from companion.serving.schemas import (
    EARLIEST,
    LARGEST_AMOUNT,
    LARGEST_ID,
    LATEST,
    LONGEST_DISTANCE,
)
from companion.transactions import CATEGORIES

Bools = NDArray[np.bool_]
Reading = tuple[Any, Bools]
"""The values of a column as an array for a frame, and which of them are usable."""

_ID = r"^(0|[1-9]\d{0,17})$"
_LONG_ID = r"^[1-9]\d{18}$"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"
_MOMENT = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$"
_CATEGORY = pd.CategoricalDtype(list(CATEGORIES))
_EARLIEST, _LATEST = (
    np.datetime64(moment.replace(tzinfo=None), "us") for moment in (EARLIEST, LATEST)
)


@dataclass(frozen=True)
class ColumnRule:
    """How `name` is read, and what is said of a row whose value cannot be meant."""

    name: str
    wanted: str
    read: Callable[[str, pa.Array], Reading]
    optional: bool = False

    @property
    def reason(self) -> str:
        return f"{self.name} is not {self.wanted}"


@dataclass(frozen=True)
class Checked:
    """`frame` holds the good rows, index 0, 1, 2 … of the batch; `rule` is by row, 0 where good."""

    frame: pd.DataFrame
    rule: NDArray[np.int16]


def check(columns: Mapping[str, pa.Array]) -> Checked:
    """The transactions in `columns` (one Arrow array each, all of one length).

    Raises `ColumnTypeError` for a column whose type fits no rule.
    """
    length = len(next(iter(columns.values())))
    rule = np.zeros(length, dtype=np.int16)
    values = {}
    for number, column in enumerate(RULES, start=1):
        if column.name not in columns:
            continue
        values[column.name], good = column.read(column.name, columns[column.name])
        rule[(rule == 0) & ~good] = number
    frame = pd.DataFrame(values)
    if rule.any():
        frame = frame[rule == 0]
    return Checked(frame, rule)


def reason_of(rule: int) -> str:
    """What rule number `rule` says of a row that breaks it."""
    if rule <= len(RULES):
        return RULES[rule - 1].reason
    return _OTHER_REASONS[rule - len(RULES) - 1]


def _id(name: str, values: pa.Array) -> Reading:
    if _is_text(values):
        short, long = _matches(values, _ID), _matches(values, _LONG_ID)
        # Of equally many digits, the order of texts is that of numbers.
        good = short | (long & _mask(pc.less_equal(values, str(LARGEST_ID))))
        return _cast(values, good, pa.int64()), good
    if not pa.types.is_integer(values.type):
        raise ColumnTypeError(name, "whole numbers", str(values.type))
    good = _mask(pc.greater_equal(values, pa.scalar(0, values.type)))
    if pa.types.is_uint64(values.type):
        good &= _mask(pc.less_equal(values, pa.scalar(LARGEST_ID, pa.uint64())))
    return _cast(values, good, pa.int64()), good


def _amount(name: str, values: pa.Array) -> Reading:
    numbers, good = _number(name, values)
    return numbers, good & (numbers > 0) & (numbers <= LARGEST_AMOUNT)


def _distance(name: str, values: pa.Array) -> Reading:
    numbers, good = _number(name, values)
    return numbers, good & (numbers >= 0) & (numbers <= LONGEST_DISTANCE)


def _number(name: str, values: pa.Array) -> Reading:
    if _is_text(values):
        good = _matches(values, _NUMBER)
        values = pc.utf8_ltrim(values, "+")
    elif _is_number(values.type):
        good = _mask(pc.is_valid(values))
    else:
        raise ColumnTypeError(name, "numbers", str(values.type))
    return _cast(values, good, pa.float64()), good


def _flag(name: str, values: pa.Array) -> Reading:
    if _is_text(values):
        yes = _mask(pc.is_in(values, value_set=pa.array(["true", "True", "1"])))
        no = _mask(pc.is_in(values, value_set=pa.array(["false", "False", "0"])))
        return yes, yes | no
    if not pa.types.is_boolean(values.type):
        raise ColumnTypeError(name, "true and false", str(values.type))
    return _mask(values), _mask(pc.is_valid(values))


def _category(name: str, values: pa.Array) -> Reading:
    known = pa.array(CATEGORIES)
    if _is_dictionary_of_text(values.type):
        # Word by word and not row by row: a long word stands there once, and may have many rows.
        codes = pc.take(pc.index_in(values.dictionary, value_set=known), values.indices)
    elif _is_text(values):
        codes = pc.index_in(values, value_set=known)
    else:
        raise ColumnTypeError(name, "text", str(values.type))
    good = _mask(pc.is_valid(codes))
    places: NDArray[np.int32] = pc.fill_null(codes, 0).to_numpy(zero_copy_only=False)
    return pd.Categorical.from_codes(places, dtype=_CATEGORY), good


def _moment(name: str, values: pa.Array) -> Reading:
    if _is_text(values):
        good = _matches(values, _MOMENT)
        text = values.filter(pa.array(good)).to_pandas()
        read = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
        moments = np.full(len(values), np.datetime64("NaT"), dtype="datetime64[us]")
        moments[good] = read.dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    elif pa.types.is_timestamp(values.type) and values.type.tz is not None:
        moments = values.cast(pa.timestamp("us", "UTC"), safe=False).to_numpy(zero_copy_only=False)
    else:
        raise ColumnTypeError(name, "moments with a time zone", str(values.type))
    good = (moments >= _EARLIEST) & (moments < _LATEST)  # false for what is missing
    return pd.DatetimeIndex(moments).tz_localize("UTC"), good


def _moment_or_nothing(name: str, values: pa.Array) -> Reading:
    empty = _mask(pc.is_null(values))
    if _is_text(values):
        empty |= _mask(pc.equal(values, ""))
    if pa.types.is_null(values.type):
        return pd.DatetimeIndex(
            np.full(len(values), "NaT", dtype="datetime64[us]"), tz="UTC"
        ), empty
    moments, good = _moment(name, values)
    return moments, good | empty


RULES: tuple[ColumnRule, ...] = (
    ColumnRule("transaction_id", "a whole number from 0", _id),
    ColumnRule("time", "a moment by RFC 3339 with its offset, from 2000 to 2099", _moment),
    ColumnRule("customer_id", "a whole number from 0", _id),
    ColumnRule("merchant_id", "a whole number from 0", _id),
    ColumnRule("category", f"one of {', '.join(CATEGORIES)}", _category),
    ColumnRule("amount", f"a number above 0, at most {LARGEST_AMOUNT:,.0f}", _amount),
    ColumnRule("distance_km", f"a number from 0 to {LONGEST_DISTANCE:,.0f}", _distance),
    ColumnRule("device_id", "a whole number from 0", _id),
    ColumnRule("is_online", "true or false", _flag),
    ColumnRule(
        "label_time",
        "empty, or a moment by RFC 3339 with its offset",
        _moment_or_nothing,
        optional=True,
    ),
)
"""In the order in which they are checked; the first that a row breaks is its reason."""

_OTHER_REASONS = (
    "the row has another number of fields than the header",
    "transaction_id stands in an earlier row too",
)
WRONG_WIDTH, REPEATED = len(RULES) + 1, len(RULES) + 2

NEEDED = tuple(rule.name for rule in RULES if not rule.optional)
KNOWN = tuple(rule.name for rule in RULES)


def _is_text(values: pa.Array) -> bool:
    return bool(pa.types.is_string(values.type) or pa.types.is_large_string(values.type))


def _is_dictionary_of_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_dictionary(kind)
        and (pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type))
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _matches(values: pa.Array, pattern: str) -> Bools:
    return _mask(pc.match_substring_regex(values, pattern))


def _mask(values: pa.Array) -> Bools:
    """Truth values as NumPy's; null is false. A copy, since some are changed in place."""
    return np.array(pc.fill_null(values, False).to_numpy(zero_copy_only=False), dtype=bool)


def _cast(values: pa.Array, good: Bools, kind: pa.DataType) -> NDArray[Any]:
    """The good values as `kind`, 0 in the place of others."""
    if not good.all():
        values = pc.if_else(pa.array(good), values, pa.scalar(None, values.type))
    numbers = pc.fill_null(pc.cast(values, kind, safe=False), 0)
    return np.asarray(numbers.to_numpy(zero_copy_only=False))
