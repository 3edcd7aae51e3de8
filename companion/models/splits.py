"""Training, validation and test rows, divided by time as the model will meet them.

A fraud model is trained on the past and judged on the future, so a split follows the clock. There
is a second, less obvious boundary: a fraud becomes known only when somebody reports it, days
later. At the moment of a cut, the last days before it have no labels yet; a model trained on them
in an experiment could not have been trained on them that day. What lies within the *label delay*
before a cut is therefore left out of the earlier part.

A random split breaks both rules. It puts neighbours of the same spree on both sides, and
transactions of tomorrow into the training of today. It is available to whoever names it and says
why it is right for them.

The idea of a delay between training and test is Dal Pozzolo et al., *Credit card fraud detection:
a realistic modeling and a novel learning strategy*, 2018; the prequential form is in Le Borgne et
al., *Reproducible Machine Learning for Credit Card Fraud Detection*, chapter 5.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.transactions import LABEL, MissingColumnsError

Positions = NDArray[np.int64]
Part = Literal["train", "validation", "test"]


class SplitError(ValueError):
    """The transactions cannot be divided as asked."""


class NaiveTimesError(SplitError):
    """The column `time` holds `found`: no times, or times without a time zone."""

    def __init__(self, found: object) -> None:
        super().__init__(
            f"time must hold times with a time zone; it holds {found}. "
            'Say which zone it is, as in transactions["time"].dt.tz_localize("UTC")'
        )
        self.found = str(found)


class UnsortedTimesError(SplitError):
    """The row at `position` lies before the row above it, or has no time."""

    def __init__(self, position: int) -> None:
        super().__init__(
            f"row {position} is earlier than the row above it, or has no time; "
            'sort first: transactions.sort_values("time")'
        )
        self.position = position


class EmptyPartError(SplitError):
    """Nothing is left for `part`; `left_out` rows fell into a gap of the label delay."""

    def __init__(self, part: Part, left_out: int, label_delay_days: float) -> None:
        gap = (
            f"; {left_out} rows lie within {label_delay_days:g} days before a cut, their labels "
            "not yet known. Take more days, other shares or a shorter label_delay_days"
            if left_out
            else ""
        )
        super().__init__(f"no rows are left for {part}{gap}")
        self.part = part
        self.left_out = left_out


class PartWithoutFraudError(SplitError):
    """None of the `rows` rows of `part` is a fraud, so nothing can be learned or measured there."""

    def __init__(self, part: Part, rows: int) -> None:
        super().__init__(f"none of the {rows} rows of {part} is a fraud; take more rows or days")
        self.part = part
        self.rows = rows


class RandomSplitRefusedError(SplitError):
    """A random split was asked for as if it were one way among others."""

    def __init__(self) -> None:
        super().__init__(
            "a random split lets the model see the future of what it is tested on: rows of one "
            "spree fall on both sides, and so do days whose labels were not known yet. Use "
            "split_by_time; if the rows really are exchangeable, say so: "
            'random_split(transactions, because="…", seed=…)'
        )


@dataclass(frozen=True)
class TimeSplit:
    """Row positions (for `iloc`) of each part, in order of time, and why some rows are in none.

    `validation` is empty and `validation_from` None where no validation part was asked for.
    """

    train: Positions
    validation: Positions
    test: Positions
    validation_from: pd.Timestamp | None
    test_from: pd.Timestamp
    left_out: int
    why_left_out: str


@dataclass(frozen=True)
class RandomSplit:
    """Row positions (for `iloc`) of each part, drawn by chance, and the reason given for that."""

    train: Positions
    validation: Positions
    test: Positions
    because: str


def split_by_time(
    transactions: pd.DataFrame,
    *,
    test_share: float = 0.3,
    validation_share: float = 0.0,
    label_delay_days: float = 7.0,
) -> TimeSplit:
    """Divide `transactions` (in order of time) into the past, what lies between, and the future.

    The last `test_share` of the rows is the test, the `validation_share` before it the validation.
    Rows of one instant are never separated: all of them go to the later part. A row stays in the
    earlier part if it is at least `label_delay_days` older than the cut; the others are left out.

    Raises `MissingColumnsError` without the columns `time` and `is_fraud`, `NaiveTimesError`,
    `UnsortedTimesError`, `EmptyPartError`, `PartWithoutFraudError`, and `SplitError` for shares
    or a delay out of range.
    """
    _check_shares(test_share, validation_share)
    if not (np.isfinite(label_delay_days) and label_delay_days >= 0):
        raise SplitError(f"label_delay_days must be 0 or more; got {label_delay_days!r}")
    times = _times(transactions)
    rows = len(times)
    delay = pd.Timedelta(days=label_delay_days)
    first_of_test = rows - round(rows * test_share)
    first_of_validation = first_of_test - round(rows * validation_share)
    if first_of_test == rows:
        raise EmptyPartError("test", 0, label_delay_days)

    before_test = _cut(times, first_of_test, delay)
    before_validation = _cut(times, first_of_validation, delay) if validation_share else None
    parts: dict[Part, Positions] = {
        "train": np.arange((before_validation or before_test).known),
        "validation": np.arange(before_validation.first, before_test.known)
        if before_validation
        else np.arange(0),
        "test": np.arange(before_test.first, rows),
    }
    left_out = rows - sum(map(len, parts.values()))
    _check_parts(transactions, parts, bool(validation_share), left_out, label_delay_days)
    return TimeSplit(
        **parts,
        validation_from=before_validation.time if before_validation else None,
        test_from=before_test.time,
        left_out=left_out,
        why_left_out=(
            f"{left_out} of {rows} rows lie within {label_delay_days:g} days before a cut: "
            "their labels were not known by then"
        ),
    )


def random_split(
    transactions: pd.DataFrame,
    *,
    because: str,
    seed: int,
    test_share: float = 0.3,
    validation_share: float = 0.0,
) -> RandomSplit:
    """Divide `transactions` by chance; `because` says why the future may be mixed into the past.

    Positions are sorted within each part. Raises `SplitError` for an empty reason or shares out
    of range, `EmptyPartError`, `PartWithoutFraudError`, and `MissingColumnsError` without the
    column `is_fraud`.
    """
    if not because.strip():
        raise SplitError("say in `because` why a random split is right here")
    _check_shares(test_share, validation_share)
    _check_columns(transactions, (LABEL,))
    rows = len(transactions)
    shuffled = np.random.default_rng(seed).permutation(rows)
    test_rows, validation_rows = round(rows * test_share), round(rows * validation_share)
    parts: dict[Part, Positions] = {
        "train": np.sort(shuffled[test_rows + validation_rows :]),
        "validation": np.sort(shuffled[test_rows : test_rows + validation_rows]),
        "test": np.sort(shuffled[:test_rows]),
    }
    _check_parts(transactions, parts, bool(validation_share), 0, 0.0)
    return RandomSplit(**parts, because=because.strip())


def split(
    transactions: pd.DataFrame,
    *,
    how: Literal["time", "random"] = "time",
    test_share: float = 0.3,
    validation_share: float = 0.0,
    label_delay_days: float = 7.0,
) -> TimeSplit:
    """`split_by_time` for code that takes the way of splitting from a configuration.

    Raises `RandomSplitRefusedError` for `how="random"`, and what `split_by_time` raises.
    """
    if how == "random":
        raise RandomSplitRefusedError
    if how != "time":
        raise SplitError(f'how must be "time"; got {how!r}')
    return split_by_time(
        transactions,
        test_share=test_share,
        validation_share=validation_share,
        label_delay_days=label_delay_days,
    )


@dataclass(frozen=True)
class _Cut:
    """An instant: rows before `known` had their labels by then, rows from `first` on follow it."""

    known: int
    first: int
    time: pd.Timestamp


def _cut(times: pd.DatetimeIndex, row: int, delay: pd.Timedelta) -> _Cut:
    time = times[row]
    first = int(times.searchsorted(time, side="left"))
    known = int(np.count_nonzero(time - times >= delay))
    # Without a delay the row at the cut itself would be "known"; it belongs to the later part.
    return _Cut(min(known, first), first, time)


def _check_shares(test_share: float, validation_share: float) -> None:
    if not 0 < test_share < 1:
        raise SplitError(f"test_share must lie between 0 and 1; got {test_share!r}")
    if not 0 <= validation_share < 1:
        raise SplitError(f"validation_share must be 0 or more and below 1; got {validation_share}")
    if test_share + validation_share >= 1:
        raise SplitError(
            f"test_share {test_share:g} and validation_share {validation_share:g} leave nothing "
            "to train on"
        )


def _check_columns(transactions: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in transactions.columns]
    if missing:
        raise MissingColumnsError(missing)


def _times(transactions: pd.DataFrame) -> pd.DatetimeIndex:
    _check_columns(transactions, ("time", LABEL))
    column = transactions["time"]
    if not isinstance(column.dtype, pd.DatetimeTZDtype):
        raise NaiveTimesError(column.dtype)
    times = pd.DatetimeIndex(column)
    # NaT compares as False with everything, so it fails here as well.
    in_order = np.concatenate([times[:1].notna(), times[1:] >= times[:-1]])
    if not in_order.all():
        raise UnsortedTimesError(int(np.argmin(in_order)))
    return times


def _check_parts(
    transactions: pd.DataFrame,
    parts: dict[Part, Positions],
    validation_asked: bool,
    left_out: int,
    label_delay_days: float,
) -> None:
    is_fraud = transactions[LABEL].to_numpy(dtype=bool)
    for part, positions in parts.items():
        if part == "validation" and not validation_asked:
            continue
        if not len(positions):
            raise EmptyPartError(part, left_out, label_delay_days)
        if not is_fraud[positions].any():
            raise PartWithoutFraudError(part, len(positions))
