"""The named ways in which a foreign file can be unfit, each with what a person needs to mend it.

A message that says "could not convert string to float" sends its reader into a file of a million
lines with nothing in hand. So each error names the file, the column as the file calls it and as we
do, how many rows are concerned, and where the first ones stand, with what stands there.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

SHOWN_ROWS = 5
_SHOWN_NAMES = 12


class LoadError(ValueError):
    """Base of what is wrong with the file at `path`; nothing of it was loaded."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


class FileFormatError(LoadError):
    """The file is missing, empty, cut short, no table, or in another encoding than stated.

    `rows` are the first rows concerned, as `RowsInFile` numbers them; empty where none can be
    named.
    """

    def __init__(self, path: Path, message: str, rows: Sequence[int] = ()) -> None:
        super().__init__(path, message)
        self.rows = tuple(rows)


class ColumnError(LoadError):
    """Columns are missing or named twice; `columns` are their names in the file, or ours."""

    def __init__(self, path: Path, message: str, columns: Sequence[str]) -> None:
        super().__init__(path, message)
        self.columns = tuple(columns)


class ValueInFileError(LoadError):
    """A column holds values that cannot be meant.

    `column` is its name in the file, `ours` the name here, `count` how many rows are concerned,
    `rows` the first of them (counted as `RowsInFile` does), `values` what stands there.
    """

    def __init__(
        self,
        path: Path,
        column: str,
        ours: str,
        problem: str,
        *,
        count: int,
        rows: Sequence[int],
        values: Sequence[object],
        unit: str = "row",
    ) -> None:
        named = f"column {column!r}" + (f" (our {ours})" if ours != column else "")
        shown = ", ".join(
            f"{unit} {row:,}: {_brief(value)}" for row, value in zip(rows, values, strict=True)
        )
        more = f" and {count - len(rows):,} more" if count > len(rows) else ""
        super().__init__(path, f"{named}: {problem}\n  {shown}{more}")
        self.column = column
        self.ours = ours
        self.problem = problem
        self.count = count
        self.rows = tuple(rows)
        self.values = tuple(values)


class OptionError(ValueError):
    """An argument of `load` cannot be meant, whatever stands in the file."""


def did_you_mean(wanted: str, known: Sequence[str]) -> str:
    """ " (did you mean 'x'?)" for the name in `known` that is nearest to `wanted`, or nothing."""
    by_folded = {name.casefold().strip(): name for name in reversed(known)}
    near = get_close_matches(wanted.casefold().strip(), list(by_folded), n=1, cutoff=0.6)
    return f" (did you mean {by_folded[near[0]]!r}?)" if near else ""


def listed(names: Sequence[str]) -> str:
    """The names as text, the first ones only where there are very many."""
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(map(repr, names[:_SHOWN_NAMES])) + more


def _brief(value: object, most: int = 40) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
