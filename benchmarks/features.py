"""Features over windows: ours beside the two ways in which pandas is used for them, in one run.

Six windows (count and sum of amounts over 1, 7 and 30 days) of every customer. The values are
compared before anything is timed: counts equal, sums equal to the cent (a rolling sum of floats
drifts in its last digits; ours adds whole cents). Ratios are to ours: how many times longer.

The per-group apply runs on a twentieth of the customers, and its time is scaled up: its cost is
per group.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd

from companion.features.defaults import feature_table, online_features, windows_of
from companion.features.definitions import window_features
from companion.features.offline import window_values
from companion.features.online import OnlineWindows
from companion.instruments.benchmark import Row, side_by_side
from companion.transactions import simulate

TITLE = "Features over windows"

_ROWS = 200_000
_MANY_ROWS = 1_000_000
_ONLINE_ROWS = 20_000
_DAYS = (1, 7, 30)
_SHARE = 20

_SIX = [
    feature
    for feature in window_features(("customer_id",), _DAYS)
    if feature.aggregate in ("count", "sum")
]


class UnequalValuesError(AssertionError):
    """Two ways that should give the same feature `name` do not."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the values of {name} differ")
        self.name = name


def run() -> list[Row]:
    return [*_six_windows(), *_twelve_features(), *_online()]


def rolling(transactions: pd.DataFrame) -> pd.DataFrame:
    """The six windows by `groupby().rolling()`, in the order of `transactions`."""
    by_customer = transactions.set_index("time").groupby("customer_id")["amount"]
    columns = {}
    for days in _DAYS:
        window = by_customer.rolling(f"{days}D")
        columns[f"customer_count_{days}d"] = window.count().to_numpy()
        columns[f"customer_amount_sum_{days}d"] = window.sum().to_numpy()
    order = np.argsort(transactions["customer_id"].to_numpy(), kind="stable")
    return pd.DataFrame(columns, index=transactions.index[order]).loc[transactions.index]


def applied(transactions: pd.DataFrame) -> pd.DataFrame:
    """The six windows by a function of each group, as they are mostly written."""

    def windows(group: pd.DataFrame) -> pd.DataFrame:
        amounts = group.set_index("time")["amount"]
        columns = {}
        for days in _DAYS:
            columns[f"customer_count_{days}d"] = amounts.rolling(f"{days}D").count().to_numpy()
            columns[f"customer_amount_sum_{days}d"] = amounts.rolling(f"{days}D").sum().to_numpy()
        return pd.DataFrame(columns, index=group.index)

    grouped = transactions.groupby("customer_id", group_keys=False)
    return grouped.apply(windows).loc[transactions.index]


def _six_windows() -> list[Row]:
    transactions = simulate(_ROWS, seed=1)
    customers = transactions["customer_id"].unique()
    some = np.random.default_rng(0).choice(customers, len(customers) // _SHARE, replace=False)
    part = transactions[transactions["customer_id"].isin(some)]
    ours = window_values(transactions, _SIX)
    _compare(ours, rolling(transactions))
    _compare(ours.loc[part.index], applied(part))
    seconds = side_by_side(
        {
            "ours": lambda: window_values(transactions, _SIX),
            "pandas groupby().rolling()": lambda: rolling(transactions),
            "pandas groupby().apply()": lambda: applied(part),
        },
        rounds=5,
    )
    seconds["pandas groupby().apply()"] *= len(customers) / len(some)
    target = {
        "pandas groupby().rolling()": "at least 10 × ours",
        "pandas groupby().apply()": "at least 100 × ours",
    }
    scaled = {"pandas groupby().apply()": f" (1 in {_SHARE} customers, scaled)"}
    return [
        Row(
            f"six customer windows, {_ROWS:,} rows, values equal",
            name + scaled.get(name, ""),
            took,
            "s",
            took / seconds["ours"],
            target.get(name, ""),
        )
        for name, took in seconds.items()
    ]


def _compare(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    for name in ours.columns:
        cents = np.rint(theirs[name].to_numpy() * 100)
        if not np.array_equal(np.rint(ours[name].to_numpy() * 100), cents):
            raise UnequalValuesError(name)


def _twelve_features() -> list[Row]:
    rows = []
    for size, target in ((_ROWS, "well under 1 s"), (_MANY_ROWS, "a few seconds")):
        transactions = simulate(size, seed=1)
        seconds = side_by_side({"ours": lambda table=transactions: feature_table(table)}, rounds=3)
        what = f"the twelve features, {size:,} rows"
        rows.append(Row(what, "time", seconds["ours"], "s", None, target))
        tracemalloc.start()
        feature_table(transactions)
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        rows.append(Row(what, "memory at its peak", peak, "MiB"))
    return rows


def _online() -> list[Row]:
    transactions = simulate(_ONLINE_ROWS, seed=1)
    events = transactions.to_dict("records")
    offline = feature_table(transactions).to_numpy().tolist()

    def serve() -> list[list[float]]:
        state, served = OnlineWindows(windows_of()), []
        for event in events:
            served.append(list(online_features(state, event).values()))
            state.observe(event)
            if not pd.isna(event["label_time"]):
                state.report(event["transaction_id"], event["label_time"])
        return served

    if serve() != offline:
        raise UnequalValuesError("the twelve, online and offline")
    seconds = side_by_side({"online": serve}, rounds=3)["online"]
    what = f"asked and observed one by one, {_ONLINE_ROWS:,} events, values equal"
    return [Row(what, "one event", seconds / _ONLINE_ROWS * 1e6, "µs")]
