"""Bring your own transactions: a foreign CSV or Parquet file, checked, as our table.

The idea is that of a border: everything is checked once, where it comes in, and nothing behind it
has to ask again. Whatever cannot be meant stops the load and says where it stands (`errors`);
what the file does not have is named in the result and never made up.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.transactions.loading.errors import ColumnError, OptionError, did_you_mean, listed
from companion.transactions.loading.sources import (
    DELIMITERS,
    OnRead,
    RowsInFile,
    open_source,
    refuse_repeated,
)
from companion.transactions.loading.times import (
    Ambiguous,
    TimeWriting,
    as_bool,
    as_times,
    time_writing,
)
from companion.transactions.loading.values import (
    Column,
    as_flags,
    as_ids,
    as_quantity,
    as_words,
    tidy,
)

REQUIRED = ("time", "customer_id", "merchant_id", "amount")
OPTIONAL = (
    "transaction_id",
    "category",
    "distance_km",
    "device_id",
    "is_online",
    "is_fraud",
    "label_time",
)
IDS = ("transaction_id", "customer_id", "merchant_id", "device_id")
_ORDER = (
    *("transaction_id", "time", "customer_id", "merchant_id", "category", "amount"),
    *("distance_km", "device_id", "is_online", "is_fraud", "label_time"),
)

Unit = Literal["euro", "cent"] | float


@dataclass(frozen=True)
class Loaded:
    """A file of transactions, whole and checked.

    `table` has one row a transaction in order of time (of one instant: of their ids, or as in the
    file), index 0, 1, 2 …, and those columns of the
    schema that the file has (ids as int64, times in UTC, amounts in euros). `transaction_id` is
    always there: numbered in order of time where the file has none. `rows` says for each row of
    the table which row of the file it was (0, 1, 2 …); `ids` has the ids as the file writes them,
    one column for each id that it has, index as the table's.

    `columns` maps our names to the file's; `missing` names our columns that the file lacks, and
    `unused` the file's that nobody asked for.
    """

    path: Path
    table: pd.DataFrame
    rows: NDArray[np.int64]
    ids: pd.DataFrame
    columns: Mapping[str, str]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def in_file_order(self, frame: pd.DataFrame) -> pd.DataFrame:
        """`frame` (one row for each of `table`, in its order) in the order of the file's rows."""
        if len(frame) != len(self.rows):
            raise ValueError(f"{len(frame)} rows given for a file of {len(self.rows)}")
        return frame.iloc[np.argsort(self.rows)].reset_index(drop=True)


def load(
    path: str | os.PathLike[str],
    columns: Mapping[str, str | None] | None = None,
    *,
    timezone: str | None = None,
    time_format: str | None = None,
    ambiguous: Ambiguous = "refuse",
    unit: Unit = "euro",
    decimal: Literal[".", ","] = ".",
    encoding: str = "utf-8",
    delimiter: str | None = None,
    on_read: OnRead | None = None,
) -> Loaded:
    """Read a CSV (also gzipped) or Parquet file of transactions.

    Args:
        columns: our name → the file's, for those that differ; None leaves a column out that the
            file has under our name. The file needs `REQUIRED`, and may have `OPTIONAL`.
        timezone: of times without an offset, as in "Europe/Berlin".
        time_format: of `time` and `label_time`. None: ISO 8601, or Parquet's own times; "s", "ms",
            "us", "ns": a count since 1970; else a pattern such as "%d.%m.%Y %H:%M".
        ambiguous: which moment is meant by a local time that the clocks showed twice.
        unit: of `amount`: "euro", "cent", or euros per unit (0.92 for a dollar at that rate).
        decimal: what separates the cents, in text.
        encoding, delimiter: of a CSV; without a delimiter it is the one that the header has.
        on_read: called while reading with rows so far and the share of the file behind them.

    Raises:
        OptionError: an argument cannot be meant.
        FileFormatError: missing, empty, cut short, ragged, no table, another encoding.
        ColumnError: a column is missing (with the nearest name that there is), or there twice.
        ValueInFileError: values that cannot be meant: which column, how many rows, where, what.
    """
    file = Path(path)
    times = time_writing(time_format, timezone, ambiguous)
    euros = _euros_per_unit(unit)
    if decimal not in (".", ","):
        raise OptionError(f"decimal={decimal!r}: it is '.' or ','")
    if delimiter is not None and len(delimiter) != 1:
        raise OptionError(f"delimiter={delimiter!r}: it is one character, as in {DELIMITERS}")
    source = open_source(file, encoding=encoding, delimiter=delimiter)
    mapping = _mapping(source, dict(columns or {}))
    refuse_repeated(source, list(mapping.values()))
    arrow = source.read(list(dict.fromkeys(mapping.values())), on_read)

    found = {ours: tidy(source, theirs, ours, arrow[theirs]) for ours, theirs in mapping.items()}
    ids = {ours: as_ids(column) for ours, column in found.items() if ours in IDS}
    writing = _Writing(times, euros, decimal)
    table = pd.DataFrame(
        {
            ours: ids[ours][0] if ours in ids else _converted(column, writing)
            for ours, column in found.items()
        }
    )
    _refuse_repeated_transactions(found, table)
    _refuse_labels_from_before(found, table)

    rows = _order(table)
    table = table.iloc[rows].reset_index(drop=True)
    if "transaction_id" not in table:
        table.insert(0, "transaction_id", np.arange(len(table), dtype="int64"))
    return Loaded(
        path=file,
        table=table,
        rows=rows.astype("int64"),
        ids=pd.DataFrame({ours: kept for ours, (_, kept) in ids.items()})
        .iloc[rows]
        .reset_index(drop=True),
        columns=mapping,
        missing=tuple(name for name in _ORDER if name not in mapping),
        unused=tuple(name for name in source.names if name not in set(mapping.values())),
    )


@dataclass(frozen=True)
class _Writing:
    """How the file writes what it means."""

    times: TimeWriting
    euros_per_unit: tuple[float, float]
    decimal: str


def _converted(column: Column, writing: _Writing) -> Any:
    if column.ours in ("time", "label_time"):
        return as_times(column, writing.times, gaps=column.ours == "label_time")
    if column.ours in ("is_online", "is_fraud"):
        return as_flags(column)
    if column.ours == "category":
        return as_words(column)
    quantity = as_quantity(column, decimal=writing.decimal)
    if column.ours != "amount":
        return quantity
    factor, divisor = writing.euros_per_unit
    return quantity * factor / divisor


def _euros_per_unit(unit: Unit) -> tuple[float, float]:
    """Factor and divisor: cents are divided by 100, which rounds once; 0.01 is not a hundredth."""
    if unit == "euro":
        return 1.0, 1.0
    if unit == "cent":
        return 1.0, 100.0
    if isinstance(unit, str) or not math.isfinite(unit) or unit <= 0:
        raise OptionError(f"unit={unit!r}: it is 'euro', 'cent', or a number of euros above 0")
    return float(unit), 1.0


def _mapping(source: RowsInFile, asked: dict[str, str | None]) -> dict[str, str]:
    """Our name → the file's for every column that will be read."""
    for ours in asked:
        if ours not in _ORDER:
            raise OptionError(
                f"columns: there is no column {ours!r} here{did_you_mean(ours, _ORDER)}; ours are "
                f"{', '.join(_ORDER)}"
            )
    taken = set(asked.values())
    mapping = {ours: theirs for ours, theirs in asked.items() if theirs is not None}
    mapping |= {
        name: name
        for name in _ORDER
        if name not in asked and name in source.names and name not in taken
    }
    absent = [theirs for theirs in mapping.values() if theirs not in source.names]
    wanted = {ours: mapping.get(ours, ours) for ours in REQUIRED if ours not in mapping}
    if absent or wanted:
        words = [f"{name!r}{did_you_mean(name, source.names)}" for name in absent]
        words += [
            f"{name!r}, which is required{did_you_mean(name, source.names)}" for name in wanted
        ]
        alone = " (is the delimiter right?)" if len(source.names) == 1 else ""
        raise ColumnError(
            source.path,
            f"there is no column {'; nor '.join(words)}. It has {listed(source.names)}{alone}; say "
            "which is which with columns={'time': 'their name', …}",
            [*absent, *wanted],
        )
    if "label_time" in mapping and "is_fraud" not in mapping:
        if "label_time" in asked:
            raise ColumnError(
                source.path, "label_time says when is_fraud was known, which it lacks", ["is_fraud"]
            )
        del mapping["label_time"]
    return {name: mapping[name] for name in _ORDER if name in mapping}


def _order(table: pd.DataFrame) -> NDArray[np.int64]:
    """Rows by time and then, as features do, by transaction id; without ids as in the file."""
    instants = table["time"].astype("int64").to_numpy()
    if "transaction_id" not in table:
        return np.argsort(instants, kind="stable")
    return np.lexsort((table["transaction_id"].to_numpy(), instants))


def _refuse_repeated_transactions(columns: Mapping[str, Column], table: pd.DataFrame) -> None:
    if "transaction_id" in columns:
        repeated = table["transaction_id"].duplicated(keep=False)
        columns["transaction_id"].refuse_if(
            as_bool(repeated), "{count} share their transaction_id with another row"
        )


def _refuse_labels_from_before(columns: Mapping[str, Column], table: pd.DataFrame) -> None:
    if "label_time" in columns:
        columns["label_time"].refuse_if(
            as_bool(table["label_time"] < table["time"]),
            "{count} whose label was known before the transaction took place",
        )
