"""Faults to inject: what goes wrong with transactions in production, on purpose and on a date.

Each function takes a table and gives a new one in which rows before the instant `start` are as
they were; the table given stays untouched. `strength` says how much goes wrong and `seed` which
rows it hits. What a fault does is said in three distributions: P(x), what transactions look like;
P(y), how many are fraud; and P(y|x), which of them. The words are those of Moreno-Torres et al.,
*A unifying view on dataset shift in classification* (Pattern Recognition 45(1), 2012), and of Gama
et al., *A survey on concept drift adaptation* (ACM Computing Surveys 46(4), 2014). Here x is a row
as it was recorded; features over a history change with the rows in it.

| fault | P(x) | P(y given x) | P(y) |
|---|---|---|---|
| `covariate_shift` | changes | stays | follows |
| `label_shift` | follows | follows | changes, while P(x given y) stays |
| `concept_drift` | stays | changes | stays |
| `adversarial_adaptation` | changes for frauds only | changes | stays |
| `null_to_zero`, `unit_error` | changes as recorded | changes as recorded | stays |
| `late_labels` | stays | stays | stays; what is known of it changes |

All raise `MissingColumnsError` for columns that lack, `NaiveTimeError` for a `start` without time
zone, and `FaultError` for a `start` after the last row, a `strength` or a `seed` out of range.
"""

from collections.abc import Callable
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.random import Generator

from companion.instruments.randomness import stream
from companion.transactions.events import Bools, Floats, Ints
from companion.transactions.reporting import NaiveTimeError
from companion.transactions.schema import LABEL, require_columns

CONTACTLESS_LIMIT = 50.0  # euros, up to which a card asks for no PIN in most of Europe

_LABELS = (LABEL, "scenario", "label_time")


class FaultError(ValueError):
    """An argument of a fault does not fit: `parameter` had `value`."""

    def __init__(self, parameter: str, value: object, allowed: str) -> None:
        super().__init__(f"{parameter} must be {allowed}; got {value!r}")
        self.parameter = parameter
        self.value = value


def covariate_shift(
    transactions: pd.DataFrame,
    *,
    start: datetime,
    strength: float = 2.0,
    seed: int,
    column: str = "amount",
) -> pd.DataFrame:
    """Rows with low values of `column` become rare: customers turn to dearer purchases.

    From `start` on, the row with the lowest value is kept with probability exp(−strength), the one
    with the highest always, in between by rank. Whether a row is kept depends on x alone, so
    P(x) changes and P(y|x) cannot; P(y) follows from both. Ids and index of the rows kept stay.
    `strength` is 0 (nothing changes) or more.
    """
    after = _rows_from(transactions, start, column)
    _check("strength", strength, strength >= 0, "0 or more")
    values = transactions[column]
    if not pd.api.types.is_numeric_dtype(values):
        raise FaultError("column", column, "one of numbers or truth values")
    rank = values[after].rank(pct=True).to_numpy(dtype="float64")
    kept = np.ones(len(transactions), dtype=bool)
    kept[after] = _rng(seed, "covariate_shift").random(len(rank)) < np.exp(-strength * (1 - rank))
    return transactions[kept].copy()


def label_shift(
    transactions: pd.DataFrame, *, start: datetime, strength: float = 2.0, seed: int
) -> pd.DataFrame:
    """Fraud becomes `strength` times as frequent (below 1: as rare), and looks as before.

    From `start` on, rows of one class are dropped at random until the fraud rate is that of before
    times `strength`. P(y) changes and P(x|y) stays, so P(x) and P(y|x) both follow. Ids and index
    of the rows kept stay. `strength` must leave a rate between 0 and 1, and some fraud.
    """
    after = _rows_from(transactions, start, LABEL)
    fraud = transactions[LABEL].to_numpy(dtype=bool)
    frauds, others = np.flatnonzero(after & fraud), np.flatnonzero(after & ~fraud)
    if not len(frauds):
        raise FaultError("start", start, "before a fraud")
    rate = strength * len(frauds) / (len(frauds) + len(others))
    _check("strength", strength, 0 < rate < 1, "such that the fraud rate stays between 0 and 1")
    if strength >= 1:
        group, surplus = others, len(others) - round(len(frauds) * (1 - rate) / rate)
    else:
        group, surplus = frauds, len(frauds) - max(1, round(len(others) * rate / (1 - rate)))
    dropped = _some(group, surplus, _rng(seed, "label_shift"))
    kept = np.ones(len(transactions), dtype=bool)
    kept[dropped] = False
    return transactions[kept].copy()


def concept_drift(
    transactions: pd.DataFrame, *, start: datetime, strength: float = 0.7, seed: int
) -> pd.DataFrame:
    """Fraud turns to another kind of purchase: small amounts without a PIN, in shops, at weekends.

    From `start` on, the share `strength` of frauds is moved: each gives its label, its scenario
    and its delay of report to a legitimate purchase in a shop on a Saturday or Sunday (UTC) of at
    most `CONTACTLESS_LIMIT`, and becomes legitimate itself. Only labels move, so P(x) and P(y)
    are exactly the same and P(y|x) is not: real drift. A model can learn the new pattern.
    Raises `FaultError` also where there are too few such purchases.
    """
    columns = ("amount", "is_online", *_LABELS)
    after = _rows_from(transactions, start, *columns)
    _check_share(strength)
    rng = _rng(seed, "concept_drift")
    fraud = transactions[LABEL].to_numpy(dtype=bool)
    tapped = (
        ~transactions["is_online"].to_numpy(dtype=bool)
        & transactions["amount"].le(CONTACTLESS_LIMIT).to_numpy()
        & transactions["time"].dt.dayofweek.ge(5).to_numpy()
    )
    before = _share(np.flatnonzero(after & fraud), strength, rng)
    candidates = np.flatnonzero(after & tapped & ~fraud)
    if len(candidates) < len(before):
        raise FaultError("strength", strength, f"low enough for {len(candidates)} such purchases")
    behind = _some(candidates, len(before), rng)
    giver = np.arange(len(transactions))
    giver[before], giver[behind] = behind, before
    delay = transactions["label_time"] - transactions["time"]
    moved = {name: transactions[name].array.take(giver) for name in (LABEL, "scenario")}
    return transactions.assign(
        **moved, label_time=transactions["time"] + pd.Series(delay.array.take(giver), delay.index)
    )


def adversarial_adaptation(
    transactions: pd.DataFrame,
    *,
    start: datetime,
    strength: float = 0.8,
    seed: int,
    threshold: float = 50.0,
) -> pd.DataFrame:
    """Thieves learn of a rule at `threshold` euros and stay below it.

    From `start` on, the share `strength` of frauds of `threshold` or more is done with 80 to
    99 % of it instead. P(x) changes for frauds alone, so P(y|x) changes around the threshold: more
    fraud below, less above. P(y) stays. `threshold` is 2 cents at least.
    """
    after = _rows_from(transactions, start, "amount", LABEL)
    _check_share(strength)
    _check("threshold", threshold, threshold >= 0.02, "2 cents or more")
    rng = _rng(seed, "adversarial_adaptation")
    caught = after & transactions[LABEL].to_numpy(dtype=bool)
    caught &= transactions["amount"].ge(threshold).to_numpy()
    moved = _share(np.flatnonzero(caught), strength, rng)
    below = np.floor(threshold * rng.uniform(0.80, 0.99, size=len(moved)) * 100) / 100
    return _with_values(transactions, "amount", moved, np.maximum(below, 0.01))


def null_to_zero(
    transactions: pd.DataFrame,
    *,
    start: datetime,
    strength: float = 0.3,
    seed: int,
    column: str = "distance_km",
) -> pd.DataFrame:
    """A source stops sending `column` for some rows, and a default turns what is missing into 0.

    From `start` on, the share `strength` of rows has 0. P(x) as recorded changes (a spike at 0),
    P(y|x) as recorded with it, since a 0 now also stands for other values; P(y) stays. Nothing is
    missing, so no check for missing values sees it. `column` holds floating-point numbers.
    """
    after = _rows_from(transactions, start, column)
    _check_share(strength)
    _check_float(transactions, column)
    hit = _share(np.flatnonzero(after), strength, _rng(seed, "null_to_zero"))
    return _with_values(transactions, column, hit, np.zeros(len(hit)))


def unit_error(
    transactions: pd.DataFrame,
    *,
    start: datetime,
    strength: float = 0.2,
    seed: int,
    column: str = "amount",
    factor: float = 100.0,
) -> pd.DataFrame:
    """Some merchants' feeds send `column` in another unit: euros come as cents, × 100.

    From `start` on, all rows of the share `strength` of merchants are multiplied by `factor`.
    P(x) as recorded changes, P(y|x) as recorded with it, and P(y) stays. `column` holds
    floating-point numbers; `factor` is above 0.
    """
    after = _rows_from(transactions, start, column, "merchant_id")
    _check_share(strength)
    _check("factor", factor, 0 < factor < np.inf, "above 0 and finite")
    _check_float(transactions, column)
    merchant = transactions["merchant_id"].to_numpy()
    wrong = _share(np.unique(merchant[after]), strength, _rng(seed, "unit_error"))
    hit = np.flatnonzero(after & np.isin(merchant, wrong))
    values = transactions[column].to_numpy(dtype="float64")[hit]
    return _with_values(transactions, column, hit, values * factor)


def late_labels(
    transactions: pd.DataFrame,
    *,
    start: datetime,
    strength: float = 1.0,
    seed: int,
    days: float = 30.0,
) -> pd.DataFrame:
    """Reports of fraud come `days` later: a chargeback desk falls behind.

    The share `strength` of the reports about rows from `start` on is put off. P(x), P(y|x) and
    P(y) stay, as does the truth; but at any instant less is known, so measured precision and
    recall are wrong and a model retrained then learns that recent frauds were none. `days` is 0
    or more.
    """
    after = _rows_from(transactions, start, "label_time")
    _check_share(strength)
    _check("days", days, 0 <= days < np.inf, "0 or more, and finite")
    reported = after & transactions["label_time"].notna().to_numpy()
    late = _share(np.flatnonzero(reported), strength, _rng(seed, "late_labels"))
    put_off = np.zeros(len(transactions), dtype="timedelta64[us]")
    put_off[late] = np.timedelta64(round(days * 86_400_000_000), "us")
    return transactions.assign(label_time=transactions["label_time"] + put_off)


FAULTS: dict[str, Callable[..., pd.DataFrame]] = {
    fault.__name__: fault
    for fault in (
        covariate_shift,
        label_shift,
        concept_drift,
        adversarial_adaptation,
        null_to_zero,
        unit_error,
        late_labels,
    )
}
"""Every fault by name; all can be called with `start` and `seed` alone."""


def _rows_from(transactions: pd.DataFrame, start: datetime, *columns: str) -> Bools:
    require_columns(transactions, ("time", *columns))
    if start.tzinfo is None:
        raise NaiveTimeError("start", start)
    after: Bools = transactions["time"].ge(pd.Timestamp(start)).to_numpy(dtype=bool)
    if not after.any():
        raise FaultError("start", start, "at or before the last transaction")
    return after


def _check(parameter: str, value: float, fits: bool, allowed: str) -> None:
    if not fits:
        raise FaultError(parameter, value, allowed)


def _check_share(strength: float) -> None:
    _check("strength", strength, 0 <= strength <= 1, "a share from 0 to 1")


def _check_float(transactions: pd.DataFrame, column: str) -> None:
    if not pd.api.types.is_float_dtype(transactions[column]):
        raise FaultError("column", column, "one of floating-point numbers")


def _rng(seed: int, fault: str) -> Generator:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise FaultError("seed", seed, "a whole number from 0 up")
    return stream(int(seed), fault)


def _share(of: Ints, strength: float, rng: Generator) -> Ints:
    return _some(of, round(len(of) * strength), rng)


def _some(of: Ints, count: int, rng: Generator) -> Ints:
    chosen: Ints = np.sort(rng.choice(of, size=count, replace=False))
    return chosen


def _with_values(
    transactions: pd.DataFrame, column: str, rows: Ints, values: Floats
) -> pd.DataFrame:
    changed = transactions[column].to_numpy(dtype="float64", copy=True)
    changed[rows] = values
    return transactions.assign(**{column: changed})
