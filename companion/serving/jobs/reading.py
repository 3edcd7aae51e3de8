"""A file of transactions read in pieces: the good rows, and what is wrong with the others.

The columns that a row needs take about 80 bytes; 100 do not fit anywhere. So what is kept of a
file is the good rows, and of a bad one its number and the number of its rule, ten bytes. A row
counts from 1 in the file's order; the header of a CSV is none.

What a file *says* about its size is not believed. A CSV is text and is not decompressed; a Parquet
file of some kilobytes can stand for gigabytes, so the rows are counted as they come, the one column
of text is read as a dictionary, which does not multiply its words, and no other column may have a
type without a fixed width.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from companion.serving.jobs.checking import (
    KNOWN,
    NEEDED,
    REPEATED,
    WRONG_WIDTH,
    Checked,
    check,
    reason_of,
)
from companion.serving.jobs.errors import (
    ColumnTypeError,
    MissingColumnsError,
    TooManyRowsError,
    UnreadableFileError,
)
from companion.serving.jobs.job import Kind, Reject

_TEXT = "category"
_BATCH_ROWS = 65_536
_LONGEST_LINE = 1 << 20
_MOST_DECODED_BYTES_A_ROW = 512
_ALWAYS_ALLOWED_BYTES = 64 << 20


@dataclass(frozen=True)
class Batch:
    """A file as far as it can be scored: `rows` of it, the good ones in `frame`.

    The index of `frame` is the row in the file, ascending. `bad` are the others' rows, ascending,
    and `rule` which rule each breaks first.
    """

    rows: int
    frame: pd.DataFrame
    bad: NDArray[np.int64]
    rule: NDArray[np.int16]

    def good_between(self, first: int, end: int) -> slice:
        """Positions in `frame` of the rows from `first` up to, not including, `end`."""
        at = np.searchsorted(self.frame.index.to_numpy(), [first, end])
        return slice(int(at[0]), int(at[1]))

    def bad_between(self, first: int, end: int, most: int) -> tuple[int, list[Reject]]:
        """How many rows between the two are bad, and the first `most` of them with reasons."""
        begin, stop = (int(at) for at in np.searchsorted(self.bad, [first, end]))
        told = slice(begin, min(stop, begin + most))
        return stop - begin, [
            Reject(int(row), reason_of(int(rule)))
            for row, rule in zip(self.bad[told], self.rule[told], strict=True)
        ]


def read_batch(path: Path, kind: Kind, *, max_rows: int) -> Batch:
    """Read and check the whole file at `path`.

    Raises `UnreadableFileError`, `MissingColumnsError`, `ColumnTypeError`, `TooManyRowsError`: all
    of them `BatchRefusedError`.
    """
    pieces = _parquet(path, max_rows) if kind == "parquet" else _csv(path)
    frames, bad, rules, rows = list[pd.DataFrame](), [], [], 0
    for piece in pieces:
        first = rows + 1
        rows += len(piece.rule)
        if rows > max_rows:
            raise TooManyRowsError("rows", max_rows)
        wrong = np.flatnonzero(piece.rule)
        bad.append(wrong + first)
        rules.append(piece.rule[wrong])
        piece.frame.index = piece.frame.index + first
        frames.append(piece.frame)
    if not rows:
        raise UnreadableFileError("the file has column names and no rows")
    frame = pd.concat(frames) if len(frames) > 1 else frames[0]
    return _without_repeats(rows, frame, np.concatenate(bad), np.concatenate(rules))


def _without_repeats(
    rows: int, frame: pd.DataFrame, bad: NDArray[np.int64], rule: NDArray[np.int16]
) -> Batch:
    """A transaction happens once: of rows that share an id, only the first is scored."""
    repeated = frame["transaction_id"].duplicated().to_numpy()
    if repeated.any():
        bad = np.concatenate([bad, frame.index.to_numpy()[repeated]])
        rule = np.concatenate([rule, np.full(int(repeated.sum()), REPEATED, dtype=np.int16)])
        order = np.argsort(bad)
        frame, bad, rule = frame[~repeated], bad[order], rule[order]
    return Batch(rows, frame, bad.astype("int64"), rule)


def _require(names: Collection[str]) -> None:
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise MissingColumnsError(missing)


def _parquet(path: Path, max_rows: int) -> Iterator[Checked]:
    try:
        schema = pq.read_schema(path)
        present = [name for name in KNOWN if name in schema.names]
        _require(present)
        _refuse_text(schema, present)
        with pq.ParquetFile(path, read_dictionary=[_TEXT]) as file:
            _refuse_bombs(file.metadata, present, max_rows)
            for batch in file.iter_batches(_BATCH_ROWS, columns=present, use_threads=False):
                yield check({name: batch.column(name) for name in present})
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise UnreadableFileError(f"the Parquet file is damaged ({error})") from error


def _refuse_text(schema: pa.Schema, names: list[str]) -> None:
    """Numbers are numbers in Parquet; a column of long words, once unpacked, is a bomb."""
    for name in names:
        kind = schema.field(name).type
        fixed = pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
        if name != _TEXT and not fixed:
            raise ColumnTypeError(name, "values of a fixed width", str(kind))


def _refuse_bombs(metadata: Any, names: list[str], max_rows: int) -> None:
    if metadata.num_rows > max_rows:
        raise TooManyRowsError("rows", max_rows)
    wanted = set(names)
    decoded = 0
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            if column.path_in_schema in wanted:
                decoded += column.total_uncompressed_size
    limit = _ALWAYS_ALLOWED_BYTES + _MOST_DECODED_BYTES_A_ROW * metadata.num_rows
    if decoded > limit:
        raise TooManyRowsError("bytes once it is decompressed", limit)


def _csv(path: Path) -> Iterator[Checked]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        records = csv.reader(_lines(file), strict=True)
        header = _next_records(records, 1)
        names = header[0] if header else []
        if not any(names):
            raise UnreadableFileError("its first line holds no column names")
        places = {name: names.index(name) for name in KNOWN if name in names}
        _require(places)
        _refuse_twice(names)
        while found := _next_records(records, _BATCH_ROWS):
            yield _checked_records([one for one in found if one], len(names), places)


def _next_records(records: Any, most: int) -> list[list[str]]:
    """Up to `most` further records; an empty line is an empty one."""
    try:
        return list(islice(records, most))
    except csv.Error as error:
        # Where quoting is broken nobody knows where the rows after it begin.
        raise UnreadableFileError(
            f"a quote is broken, in line {records.line_num:,} at the latest ({error})"
        ) from error


def _lines(file: Any) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise UnreadableFileError(f"a line has {_LONGEST_LINE:,} characters or more")
        yield line


def _refuse_twice(names: list[str]) -> None:
    twice = [name for name in KNOWN if names.count(name) > 1]
    if twice:
        raise UnreadableFileError(f"more than one column is called {', '.join(twice)}")


def _checked_records(records: list[list[str]], width: int, places: Mapping[str, int]) -> Checked:
    whole = np.array([len(record) == width for record in records], dtype=bool)
    rule = np.full(len(records), WRONG_WIDTH, dtype=np.int16)
    fitting = records if whole.all() else [one for one in records if len(one) == width]
    columns = {
        name: pa.array([record[place] for record in fitting], pa.string())
        for name, place in places.items()
    }
    checked = check(columns)
    rule[whole] = checked.rule
    checked.frame.index = pd.Index(np.flatnonzero(whole)[checked.frame.index.to_numpy()])
    return Checked(checked.frame, rule)
