"""What investigators see: the precision of as many alerts as they can look at.

A team that can check fifty cards a day does not care for the order of the other thousands. So a
model is judged on the top of its ranking: the share of frauds among the alerts (precision) and the
share of all frauds that the alerts catch (recall), at a *budget* of alerts.

Two units matter. Transactions are what the model scores; cards are what is blocked, and one card
in a spree fills the day's list with alerts about one case. *Card precision@k* ranks each day's
cards by their worst transaction and counts the compromised ones among the first k; a card found
out is blocked, so later days cannot earn it again (Le Borgne, Siblini, Lebichot & Bontempi,
*Reproducible Machine Learning for Credit Card Fraud Detection*, 2022, chapter 4).

Ties at the edge of the budget are broken by chance, and what is given is the expected value. A
model that says the same of everybody gets the base rate, whatever the order of the rows.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.models.metrics import Labels, RowsMismatchError, checked, thresholds_of


class BudgetError(ValueError):
    """A budget is no number of alerts or share of rows in range, or both, or neither."""


class TimesError(ValueError):
    """Days cannot be told: the times are missing, or have no time zone."""


@dataclass(frozen=True)
class Alerts:
    """`alerts` alerts, all rows from the probability `threshold` up, and what they are worth.

    `caught` counts frauds among them, the expected number where ties cross the budget.
    """

    alerts: int
    threshold: float
    precision: float
    recall: float
    caught: float
    frauds: int


@dataclass(frozen=True)
class DailyAlerts:
    """Precision and recall of each day's alerts: the means over days, and over all alerts.

    `per_day` has one row a day: alerts, caught, frauds, precision, recall (NaN without fraud).
    """

    precision: float
    recall: float
    per_day: pd.DataFrame


@dataclass(frozen=True)
class CardPrecision:
    """`mean` over days of the share of compromised cards among the k most suspicious ones.

    `per_day` has one row a day: cards (seen), compromised, found, precision.
    """

    k: int
    mean: float
    per_day: pd.DataFrame


def at_budget(
    y: ArrayLike,
    probability: ArrayLike,
    *,
    alerts: int | None = None,
    share: float | None = None,
) -> Alerts:
    """The top `alerts` rows, or the top `share` of the rows (rounded, at least one).

    Raises `BudgetError` and what `companion.models.metrics` raises.
    """
    labels, p = checked(y, probability)
    budget = _budget(len(labels), alerts, share)
    order, ends = thresholds_of(p)
    caught = _expected_caught(labels[order], ends, budget)
    frauds = int(labels.sum())
    threshold = float(p[order][budget - 1])
    return Alerts(budget, threshold, caught / budget, caught / frauds, caught, frauds)


def at_daily_budget(
    times: ArrayLike, y: ArrayLike, probability: ArrayLike, *, alerts_per_day: int
) -> DailyAlerts:
    """Each day's top `alerts_per_day` rows; a day is one of the time zone of `times` (rows).

    `precision` and `recall` are over all alerts and frauds of all days. Raises `BudgetError`,
    `TimesError`, and what `companion.models.metrics` raises.
    """
    labels, p = checked(y, probability)
    day = _days(times, len(labels))
    _check_whole("alerts_per_day", alerts_per_day)
    rows = []
    for date in np.unique(day):
        here = np.flatnonzero(day == date)
        budget = min(alerts_per_day, len(here))
        order, ends = thresholds_of(p[here])
        caught = _expected_caught(labels[here][order], ends, budget)
        frauds = int(labels[here].sum())
        recall = caught / frauds if frauds else np.nan
        rows.append((date, budget, caught, frauds, caught / budget, recall))
    columns = ["day", "alerts", "caught", "frauds", "precision", "recall"]
    per_day = pd.DataFrame(rows, columns=columns).set_index("day")
    caught_in_all = float(per_day["caught"].sum())
    return DailyAlerts(
        precision=caught_in_all / int(per_day["alerts"].sum()),
        recall=caught_in_all / int(per_day["frauds"].sum()),
        per_day=per_day,
    )


def card_precision_at_k(
    times: ArrayLike,
    cards: ArrayLike,
    y: ArrayLike,
    probability: ArrayLike,
    *,
    k: int,
    block_found: bool = True,
) -> CardPrecision:
    """Of each day's `k` most suspicious `cards` (rows; customer ids), how many were compromised?

    A card is as suspicious as its most suspicious transaction of the day, and compromised if one
    of them is a fraud. With `block_found` a compromised card among the k is gone from the next day
    on. Of equally suspicious cards the smaller id comes first. A day with fewer than k cards is
    divided by the cards it has. Raises as `at_daily_budget` does.
    """
    labels, p = checked(y, probability)
    day = _days(times, len(labels))
    names = np.asarray(cards)
    if len(names) != len(labels):
        raise RowsMismatchError("cards", len(labels), len(names))
    _check_whole("k", k)
    table = pd.DataFrame({"day": day, "card": names, "p": p, "is_fraud": labels})
    worst = table.groupby(["day", "card"], as_index=False)[["p", "is_fraud"]].max()
    worst = worst.sort_values(["day", "p", "card"], ascending=[True, False, True])
    blocked: set[object] = set()
    rows = []
    for date, seen in worst.groupby("day"):
        free = seen[~seen["card"].isin(blocked)]
        top = free.head(k)
        found = top.loc[top["is_fraud"] == 1, "card"]
        share = len(found) / len(top) if len(top) else np.nan
        rows.append((date, len(free), int(free["is_fraud"].sum()), len(found), share))
        if block_found:
            blocked.update(found)
    columns = ["day", "cards", "compromised", "found", "precision"]
    per_day = pd.DataFrame(rows, columns=columns).set_index("day")
    return CardPrecision(k=k, mean=float(per_day["precision"].mean()), per_day=per_day)


def _expected_caught(ranked: Labels, ends: NDArray[np.intp], budget: int) -> float:
    """Frauds among the first `budget` of `ranked` labels, ties at the edge broken by chance."""
    run = int(np.searchsorted(ends, budget - 1))
    before = int(ends[run - 1]) + 1 if run else 0
    tied = ranked[before : ends[run] + 1]
    return float(ranked[:before].sum() + tied.mean() * (budget - before))


def _budget(rows: int, alerts: int | None, share: float | None) -> int:
    if (alerts is None) == (share is None):
        raise BudgetError("give either a number of alerts or a share of the rows")
    if share is not None:
        if not 0 < share <= 1:
            raise BudgetError(f"share must lie above 0 and not above 1; got {share!r}")
        return max(1, round(rows * share))
    _check_whole("alerts", alerts)
    assert alerts is not None
    if alerts > rows:
        raise BudgetError(f"{alerts} alerts from {rows} rows")
    return alerts


def _check_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise BudgetError(f"{name} must be a whole number from 1 up; got {value!r}")


def _days(times: ArrayLike, rows: int) -> NDArray[np.datetime64]:
    index = pd.Index(times)  # type: ignore[arg-type]  # an index takes any list of values
    if not isinstance(index, pd.DatetimeIndex) or index.tz is None:
        raise TimesError(f"times need a time zone to be divided into days; got {index.dtype}")
    if index.hasnans:
        raise TimesError(f"{int(index.isna().sum())} times are missing")
    if len(index) != rows:
        raise RowsMismatchError("times", rows, len(index))
    return index.tz_localize(None).to_numpy().astype("datetime64[D]")
