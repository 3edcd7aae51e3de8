"""A file of transactions as it stands: which columns it has, their values, where each row is.

CSV is read as text, every field of it, and only the columns asked for: guessing types per block is
how "007" becomes 7 and how one stray letter in the last line turns a column of numbers into text.
What a value means is decided later, over the whole column, so that an error can name all of its
rows. Parquet knows its types and is read as it is. What kind of file it is, its first bytes say;
names lie.

pyarrow reads (its streaming reader keeps one block of the file at a time); its row numbers are
lost as soon as it skips an empty line, so where a row stands in a CSV is found by reading the file
a second time, with the standard library's csv, and only once there is something to complain about.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Protocol

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from companion.transactions.loading.errors import SHOWN_ROWS, ColumnError, FileFormatError, listed

OnRead = Callable[[int, float], None]
"""Called while reading with the rows read so far and the share of the file behind them (0–1)."""

DELIMITERS = (",", ";", "\t", "|")
_BLOCK_BYTES = 4 << 20
_BATCH_ROWS = 131_072
_SNIFFED_BYTES = 65_536
_CUT_SHORT = (EOFError, zlib.error, gzip.BadGzipFile)


class RowsInFile(Protocol):
    """A file of rows and columns, opened as far as its column names."""

    @property
    def path(self) -> Path: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def unit(self) -> str:
        """How a person finds a row: "line" of a text (the header is line 1), "row" of others."""

    def read(self, columns: Sequence[str], on_read: OnRead | None) -> pa.Table:
        """The named columns, all rows, in the file's order. Raises `FileFormatError`."""

    def numbers(self, positions: Sequence[int]) -> list[int]:
        """Where rows (0, 1, 2 … in the file's order) stand, counted in `unit`s from 1."""


def open_source(path: Path, *, encoding: str, delimiter: str | None) -> RowsInFile:
    """Look at the first bytes of `path` and its column names.

    `encoding` and `delimiter` are for CSV only; without a delimiter it is the one of `DELIMITERS`
    that the header has most of. Raises `FileFormatError` for what is no table, `ColumnError` for
    no column names at all.
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "there is no such file"
        raise FileFormatError(path, what)
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise FileFormatError(path, "the file is empty")
    if start == b"PAR1":
        return _open_parquet(path)
    if path.suffix.lower() in (".parquet", ".pq"):
        raise FileFormatError(path, "is no Parquet file, whatever its name says")
    if start == b"PK\x03\x04":
        raise FileFormatError(path, "is a zip archive or an Excel file: save it as CSV or Parquet")
    return _open_csv(path, start[:2] == b"\x1f\x8b", encoding, delimiter)


@dataclass(frozen=True)
class ParquetSource:
    """A Parquet file; its columns keep the types that they have."""

    path: Path
    names: tuple[str, ...]
    unit: str = "row"

    def read(self, columns: Sequence[str], on_read: OnRead | None) -> pa.Table:
        try:
            with pq.ParquetFile(self.path) as file:
                total, done, batches = file.metadata.num_rows, 0, []
                for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                    batches.append(batch)
                    done += batch.num_rows
                    if on_read:
                        on_read(done, done / total)
            if not batches:
                raise FileFormatError(self.path, "has column names and no rows")
            table = pa.Table.from_batches(batches).select(columns)
            table.validate(full=True)  # text that is no UTF-8, for one
        except (pa.ArrowException, OSError) as error:
            raise FileFormatError(self.path, f"the Parquet file is damaged ({error})") from error
        return table

    def numbers(self, positions: Sequence[int]) -> list[int]:
        return [int(position) + 1 for position in positions]


@dataclass(frozen=True)
class CsvSource:
    """A CSV file, gzipped or not; every value is text, spaces and quotes around it taken off."""

    path: Path
    names: tuple[str, ...]
    gzipped: bool
    encoding: str
    delimiter: str
    unit: str = "line"

    def read(self, columns: Sequence[str], on_read: OnRead | None) -> pa.Table:
        ragged: list[int] = []

        def on_ragged(row: pa_csv.InvalidRow) -> str:
            ragged.append(row.actual_columns)
            return "skip"

        size = self.path.stat().st_size
        try:
            with self.path.open("rb") as raw:
                reader = self._reader(raw, columns, on_ragged)
                batches, done = [], 0
                for batch in reader:
                    batches.append(batch)
                    done += batch.num_rows
                    if on_read:
                        on_read(done, min(raw.tell() / size, 1.0))
        except _CUT_SHORT as error:
            raise _cut_short(self.path, error) from error
        except (pa.ArrowException, UnicodeError) as error:
            raise self._unreadable(error) from error
        if ragged:
            raise self._ragged(len(ragged))
        if not done:
            raise FileFormatError(self.path, "has column names and no rows")
        return pa.Table.from_batches(batches).select(columns)

    def numbers(self, positions: Sequence[int]) -> list[int]:
        wanted, found = set(map(int, positions)), {}
        for position, (line, _) in enumerate(self._records()):
            if position in wanted:
                found[position] = line
                if len(found) == len(wanted):
                    break
        return [found[int(position)] for position in positions]

    def _reader(
        self, raw: IO[bytes], columns: Sequence[str], on_ragged: Callable[[object], str]
    ) -> pa_csv.CSVStreamingReader:
        return pa_csv.open_csv(
            gzip.GzipFile(fileobj=raw) if self.gzipped else raw,
            read_options=pa_csv.ReadOptions(
                use_threads=False, block_size=_BLOCK_BYTES, encoding=self.encoding
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=on_ragged
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=columns, column_types=dict.fromkeys(columns, pa.string())
            ),
        )

    def _records(self) -> Iterator[tuple[int, list[str] | None]]:
        """Each row after the header with the line it begins on; empty lines are no rows.

        None, and the end, for a row with a field too long to be one: a quote was never closed.
        """
        with _text(self.path, self.gzipped, self.encoding, errors="replace") as file:
            reader = csv.reader(file, delimiter=self.delimiter)
            next(reader)
            begins = reader.line_num + 1
            try:
                for record in reader:
                    if record:
                        yield begins, record
                    begins = reader.line_num + 1
            except csv.Error:
                yield begins, None

    def _ragged(self, count: int) -> FileFormatError:
        wanted = len(self.names)
        wrong = ((line, row) for line, row in self._records() if row is None or len(row) != wanted)
        found = list(islice(wrong, SHOWN_ROWS))
        shown = ", ".join(
            f"line {line:,} has {len(row) if row is not None else 'no end'}" for line, row in found
        )
        more = f" and {count - len(found):,} more" if count > len(found) else ""
        return FileFormatError(
            self.path,
            f"the header has {wanted} fields, and not every line has: {shown}{more} "
            "(a quote that is never closed swallows lines)",
            [line for line, _ in found],
        )

    def _unreadable(self, error: Exception) -> FileFormatError:
        line = _first_undecodable_line(self.path, self.gzipped, self.encoding)
        if line is None:
            return FileFormatError(self.path, f"cannot be read as CSV ({error})")
        return _wrong_encoding(self.path, self.encoding, line)


def _open_parquet(path: Path) -> ParquetSource:
    try:
        names = tuple(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise FileFormatError(path, f"the Parquet file is damaged ({error})") from error
    return ParquetSource(path, names)


def _open_csv(path: Path, gzipped: bool, encoding: str, delimiter: str | None) -> CsvSource:
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise FileFormatError(path, f"there is no encoding {encoding!r}") from error
    _refuse_other_bytes(path, gzipped, encoding)
    # A byte order mark is no part of the first column's name.
    reading = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    try:
        with _text(path, gzipped, reading, errors="strict") as file:
            first = file.readline()
            chosen = delimiter or max(DELIMITERS, key=first.count)
            rest = iter([first, *file.readlines(_SNIFFED_BYTES)])
            names = tuple(next(csv.reader(rest, delimiter=chosen), ()))
    except UnicodeError as error:
        line = _first_undecodable_line(path, gzipped, encoding)
        raise _wrong_encoding(path, encoding, line or 1) from error
    except csv.Error as error:
        raise FileFormatError(path, f"its header is no line of CSV ({error})") from error
    except _CUT_SHORT as error:
        raise _cut_short(path, error) from error
    if not any(names):
        raise ColumnError(path, "its first line holds no column names", ())
    return CsvSource(path, names, gzipped, encoding, chosen)


def refuse_repeated(source: RowsInFile, needed: Sequence[str]) -> None:
    """Raise `ColumnError` where a needed column's name stands in the file more than once."""
    times = Counter(source.names)
    repeated = [name for name in needed if times[name] > 1]
    if repeated:
        raise ColumnError(
            source.path,
            f"more than one column is called {listed(repeated)}: nobody could tell which is meant; "
            "rename them in the file",
            repeated,
        )


def _refuse_other_bytes(path: Path, gzipped: bool, encoding: str) -> None:
    try:
        with _bytes(path, gzipped) as file:
            start = file.read(_SNIFFED_BYTES)
    except _CUT_SHORT as error:
        raise _cut_short(path, error) from error
    if not start.strip():
        raise FileFormatError(path, "the file is empty")
    wide = "16" in encoding or "32" in encoding
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not wide:
        raise FileFormatError(path, "is written in UTF-16: say encoding='utf-16'")
    if b"\0" in start and not wide:
        raise FileFormatError(path, "is no CSV: it holds zero bytes, as no text does")


def _text(path: Path, gzipped: bool, encoding: str, *, errors: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(_bytes(path, gzipped), encoding=encoding, errors=errors, newline="")


def _bytes(path: Path, gzipped: bool) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path) if gzipped else path.open("rb")


def _first_undecodable_line(path: Path, gzipped: bool, encoding: str) -> int | None:
    with _bytes(path, gzipped) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode(encoding)
            except UnicodeError:
                return number
    return None


def _wrong_encoding(path: Path, encoding: str, line: int) -> FileFormatError:
    return FileFormatError(
        path,
        f"line {line:,} is not written in {encoding}: state the file's own encoding, as in "
        "encoding='cp1252' (Windows) or 'latin-1'",
        [line],
    )


def _cut_short(path: Path, error: Exception) -> FileFormatError:
    return FileFormatError(path, f"the gzip file is cut short or damaged ({error})")
