"""What the values of a foreign column mean: ids, amounts, distances, yes and no.

A value is converted only where nobody could mean anything else by it, and a whole column or
none of it. Everything else is refused by `Column.refuse`, which says where.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from companion.transactions.loading.errors import SHOWN_ROWS, ValueInFileError
from companion.transactions.loading.sources import RowsInFile

_NOTHING = ("", "na", "n/a", "nan", "nat", "none", "null", "<na>", "\\n")
"""How programs write that a value is missing, folded to small letters."""
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_INFINITE = r"^[+-]?inf(inity)?$"
_WHOLE_ID = r"^(0|-?[1-9]\d{0,17})$"
"""Whole numbers written in the one way that int64 would write them again: "007" is a text."""
MOST = 1e9
"""Of anything in its own unit; far beyond any payment, and small enough to be summed exactly."""
_YES, _NO = ("1", "true", "1.0"), ("0", "false", "0.0")


@dataclass(frozen=True)
class Column:
    """One column of `source`: called `theirs` there and `ours` here; one Arrow value a row."""

    source: RowsInFile
    theirs: str
    ours: str
    values: pa.ChunkedArray

    @property
    def is_text(self) -> bool:
        return bool(pa.types.is_string(self.values.type))

    @property
    def is_number(self) -> bool:
        kind = self.values.type
        return bool(
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        )

    def missing(self) -> NDArray[np.bool_]:
        """Which rows say nothing: null, not a number, or a word for it such as NULL."""
        if self.is_text:
            folded = pc.utf8_lower(self.values)
            return as_mask(pc.is_in(folded, value_set=pa.array([*_NOTHING, None], pa.string())))
        return as_mask(pc.is_null(self.values, nan_is_null=True))

    def refuse(self, mask: NDArray[np.bool_], problem: str) -> NoReturn:
        """Raise `ValueInFileError` about the rows of `mask`."""
        positions = np.flatnonzero(mask)
        first = [int(position) for position in positions[:SHOWN_ROWS]]
        raise ValueInFileError(
            self.source.path,
            self.theirs,
            self.ours,
            problem.format(count=_counted(len(positions))),
            count=len(positions),
            rows=self.source.numbers(first),
            values=[_shown(self.values[position]) for position in first],
            unit=self.source.unit,
        )

    def refuse_if(self, mask: NDArray[np.bool_], problem: str) -> None:
        """`refuse` where there is any row to refuse; `{count}` in `problem` becomes "3 rows"."""
        if mask.any():
            self.refuse(mask, problem)

    def refuse_missing(self, problem: str = "{count} without a value") -> None:
        self.refuse_if(self.missing(), problem)


def tidy(source: RowsInFile, theirs: str, ours: str, values: pa.ChunkedArray) -> Column:
    """A column ready to be converted: text without spaces around it, no dictionaries."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
    if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
        values = values.cast(pa.string())
    if pa.types.is_string(values.type):
        values = pc.utf8_trim_whitespace(values)
    return Column(source, theirs, ours, values)


def as_quantity(column: Column, *, decimal: str) -> NDArray[np.float64]:
    """Numbers, finite and not negative; `decimal` separates the fraction where they are text.

    Raises `ValueInFileError` for rows that say nothing, are no number, are infinite, negative, or
    above `MOST`.
    """
    column.refuse_missing()
    if column.is_text:
        text = (
            pc.replace_substring(column.values, decimal, ".") if decimal != "." else column.values
        )
        column.refuse_if(_matches(text, _INFINITE, ignore_case=True), "{count} infinite")
        column.refuse_if(
            ~_matches(text, _NUMBER),
            "{count} with something that is no number (write 1234.56; where a comma separates the "
            "cents, say decimal=',')",
        )
        numbers = pc.cast(pc.utf8_ltrim(text, "+"), pa.float64())
    elif column.is_number:
        numbers = pc.cast(column.values, pa.float64(), safe=False)
    else:
        column.refuse(_all(column), f"{{count}} of type {column.values.type}, not numbers")
    found = numbers.to_numpy()
    column.refuse_if(~np.isfinite(found), "{count} infinite")
    column.refuse_if(
        found < 0,
        "{count} below 0 (a refund is no payment: leave those rows out, or turn the sign)"
        if column.ours == "amount"
        else "{count} below 0",
    )
    column.refuse_if(found > MOST, f"{{count}} above {MOST:,.0f} (is it the right column?)")
    return np.asarray(found, dtype="float64")


def as_flags(column: Column) -> NDArray[np.bool_]:
    """Yes and no, written as 1 and 0 or true and false.

    Raises `ValueInFileError` for rows with anything else, or with nothing.
    """
    column.refuse_missing("{count} without a value (0 and 1, or false and true, and no gaps)")
    if pa.types.is_boolean(column.values.type):
        return as_mask(column.values)
    words = pc.utf8_lower(pc.cast(column.values, pa.string()))
    yes = as_mask(pc.is_in(words, value_set=pa.array(_YES)))
    no = as_mask(pc.is_in(words, value_set=pa.array(_NO)))
    column.refuse_if(~yes & ~no, "{count} with something other than 0, 1, true, false")
    return yes


def as_ids(column: Column) -> tuple[NDArray[np.int64], pd.Series[Any]]:
    """Whole numbers that stand for the ids, and the ids as the file has them.

    Ids that are whole numbers stand for themselves; others are numbered 0, 1, 2 … in the order of
    their text, so the order of the rows does not matter. Raises `ValueInFileError` for rows
    without an id, and for numbers that are not whole.
    """
    column.refuse_missing("{count} without an id")
    values = column.values
    if pa.types.is_floating(values.type):
        numbers = values.to_numpy()
        column.refuse_if(
            (numbers != np.floor(numbers)) | (np.abs(numbers) >= 2**53),
            "{count} with a number that is not whole: an id is a whole number or a text",
        )
        values = pc.cast(values, pa.int64())
    if pa.types.is_signed_integer(values.type):
        whole = values.to_numpy().astype("int64")
        return whole, pd.Series(whole)
    text = values if column.is_text else pc.cast(values, pa.string())
    if _matches(text, _WHOLE_ID).all():
        whole = pc.cast(text, pa.int64()).to_numpy()
        return whole, pd.Series(whole if not _typed_text(column) else text.to_pandas())
    kept = text.to_pandas()
    codes, _ = pd.factorize(kept, sort=True)
    return codes.astype("int64"), kept


def as_words(column: Column) -> pd.Series[Any]:
    """A category per row, the file's own words; a row that says nothing has none."""
    text = column.values if column.is_text else pc.cast(column.values, pa.string())
    words: pd.Series[Any] = text.to_pandas().mask(column.missing())
    return words.astype("category")


def as_mask(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    """An Arrow column of truth values; null is false."""
    return np.asarray(pc.fill_null(values, False).to_numpy(), dtype=bool)


def _shown(value: pa.Scalar) -> object:
    try:
        return value.as_py()
    except OverflowError:  # a time beyond Python's years
        return value.value


def _matches(
    text: pa.ChunkedArray, pattern: str, *, ignore_case: bool = False
) -> NDArray[np.bool_]:
    return as_mask(pc.match_substring_regex(text, pattern, ignore_case=ignore_case))


def _typed_text(column: Column) -> bool:
    """Whether the file itself says that the ids are text (a CSV says nothing about types)."""
    return column.is_text and column.source.unit == "row"


def _all(column: Column) -> NDArray[np.bool_]:
    return np.ones(len(column.values), dtype=bool)


def _counted(rows: int) -> str:
    return f"{rows:,} row" if rows == 1 else f"{rows:,} rows"
