"""Features over history and features from online state are those of a slow, plain oracle.

The oracle below follows the words of `companion.features.definitions` and nothing else: for each
row it looks at every event. Histories are small and dense, so that instants coincide, windows end
exactly on events, labels arrive exactly at the delay, and entities come and go.
"""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from companion.features.defaults import (
    FEATURES,
    WINDOWS,
    feature_table,
    online_features,
    windows_of,
)
from companion.features.definitions import DAY_US, WindowFeature, window_features
from companion.features.offline import window_values
from companion.features.online import OnlineWindows
from companion.transactions import simulate

START = pd.Timestamp("2026-03-01 12:00", tz="UTC")
HALF_DAY = DAY_US // 2

DEFINITIONS = (
    *window_features(label_delay_days=7),
    *WINDOWS,
    WindowFeature("pair_sum", ("customer_id", "device_id"), 2.5, "sum", "amount", neutral=-1.0),
    WindowFeature(
        "metres", ("merchant_id",), 7, "mean", "distance_km", per_unit=1000, counts_current=True
    ),
    WindowFeature("quick_risk", ("customer_id",), 7, "risk", label_delay_days=1, neutral=0.5),
    WindowFeature("just_now", ("merchant_id",), 1 / DAY_US, "count", counts_current=True),
)
DEFINITIONS = tuple({feature.name: feature for feature in DEFINITIONS}.values())

# Half days, and a microsecond beside them: events lie on the edges of windows and just off them.
times = st.builds(
    lambda halves, jitter: halves * HALF_DAY + jitter,
    st.integers(0, 90),
    st.sampled_from([0, 0, 0, 1, -1]),
)
delays = st.one_of(
    st.none(),
    st.builds(
        lambda halves, jitter: max(0, halves * HALF_DAY + jitter),
        st.integers(0, 30),
        st.sampled_from([0, 0, 1]),
    ),
)
events = st.fixed_dictionaries(
    {
        "time": times,
        "customer_id": st.integers(0, 2),
        "merchant_id": st.integers(0, 1),
        "device_id": st.integers(0, 2),
        "cents": st.integers(0, 10**7),
        "metres": st.integers(0, 500_000),
        "is_online": st.booleans(),
        "reported_after": delays,
    }
)
histories = st.lists(events, min_size=1, max_size=25)


def at(time):
    return START + pd.Timedelta(microseconds=time)


def table_of(drawn):
    columns = {
        "transaction_id": range(len(drawn)),
        **{
            name: [event[name] for event in drawn]
            for name in ("customer_id", "merchant_id", "device_id", "is_online")
        },
        "time": [at(event["time"]) for event in drawn],
        "amount": [event["cents"] / 100 for event in drawn],
        "distance_km": [event["metres"] / 1000 for event in drawn],
        "label_time": [
            pd.NaT
            if event["reported_after"] is None
            else at(event["time"] + event["reported_after"])
            for event in drawn
        ],
    }
    table = pd.DataFrame(columns)
    for column in ("time", "label_time"):
        table[column] = pd.to_datetime(table[column], utc=True).astype("datetime64[us, UTC]")
    return table


def oracle(drawn, asking, feature):
    """The value of `feature` for event number `asking`, looking at each event in turn."""
    own = drawn[asking]
    now, width, delay = own["time"], feature.window_us, feature.delay_us
    inside = []
    for place, event in enumerate(drawn):
        then = event["time"]
        if any(event[column] != own[column] for column in feature.entity):
            continue
        if feature.aggregate == "risk":
            if now - delay - width < then <= now - delay:
                inside.append(event)
            continue
        before = (then, place) < (now, asking) or (place == asking and feature.counts_current)
        if now - width < then and before:
            inside.append(event)
    if feature.aggregate == "count":
        return float(len(inside))
    if not inside:
        return feature.neutral
    if feature.aggregate == "risk":
        after = [event["reported_after"] for event in inside]
        return sum(days is not None and days <= delay for days in after) / len(inside)
    if feature.aggregate == "minutes_since":
        return float(Fraction(now - max(event["time"] for event in inside), 60_000_000))
    whole = {"amount": "cents", "distance_km": "metres"}[feature.column]
    share = len(inside) if feature.aggregate == "mean" else 1
    return float(Fraction(sum(event[whole] for event in inside), share * feature.per_unit))


def expected(drawn):
    return [
        [oracle(drawn, asking, feature) for feature in DEFINITIONS] for asking in range(len(drawn))
    ]


def feed(state, rows):
    for row in rows:
        state.observe(row)
        if not pd.isna(row["label_time"]):
            state.report(row["transaction_id"], row["label_time"])


def in_order(rows):
    return sorted(rows, key=lambda row: (row["time"], row["transaction_id"]))


thorough = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.data_too_large]
)


@thorough
@given(histories)
def test_history_gives_the_values_of_the_oracle(drawn):
    table = table_of(drawn)
    assert window_values(table, DEFINITIONS).to_numpy().tolist() == expected(drawn)


@thorough
@given(histories)
def test_state_gives_the_values_of_the_oracle_while_events_happen(drawn):
    """Each value is asked before its own event is observed, and none after it is: as in service."""
    table = table_of(drawn)
    state, served = OnlineWindows(DEFINITIONS), {}
    for row in in_order(table.to_dict("records")):
        served[row["transaction_id"]] = list(state.values(row).values())
        feed(state, [row])
    assert [served[place] for place in table["transaction_id"]] == expected(drawn)


@thorough
@given(histories, st.randoms(use_true_random=False))
def test_state_is_the_same_however_late_and_however_often_events_arrive(drawn, random):
    table = table_of(drawn)
    rows = table.to_dict("records")
    arrivals = [("event", row) for row in rows for _ in range(random.randint(1, 3))]
    for row in rows:
        if not pd.isna(row["label_time"]):
            later = row["label_time"] + pd.Timedelta(days=random.choice([0, 3, 30]))
            arrivals += [
                ("report", {**row, "label_time": when}) for when in (later, row["label_time"])
            ]
    random.shuffle(arrivals)
    state = OnlineWindows(DEFINITIONS)
    for kind, row in arrivals:
        if kind == "event":
            state.observe(row)
        else:
            state.report(row["transaction_id"], row["label_time"])
    assert [list(state.values(row).values()) for row in rows] == expected(drawn)


@thorough
@given(histories, st.randoms(use_true_random=False))
def test_history_is_the_same_in_any_order_of_rows_and_with_repeated_rows(drawn, random):
    table = table_of(drawn)
    values = window_values(table, DEFINITIONS)
    places = [place for place in range(len(table)) for _ in range(random.randint(1, 2))]
    random.shuffle(places)
    assert window_values(table.iloc[places], DEFINITIONS).equals(values.iloc[places])


@thorough
@given(histories, st.integers(0, 40))
def test_what_happens_later_changes_no_earlier_value(drawn, kept):
    table = table_of(drawn)
    table = table.sort_values(["time", "transaction_id"]).reset_index(drop=True)
    before = table.iloc[: max(1, min(kept, len(table)))]
    until = before["time"].max()
    unknown = before.assign(label_time=before["label_time"].where(before["label_time"] <= until))
    assert window_values(unknown, DEFINITIONS).equals(
        window_values(table, DEFINITIONS).loc[before.index]
    )


@thorough
@given(histories, st.integers(-1, 100))
def test_forgetting_changes_no_value_of_the_present(drawn, cut):
    short = [feature for feature in DEFINITIONS if feature.days <= 7]
    rows, since = in_order(table_of(drawn).to_dict("records")), at(cut * HALF_DAY)
    remembers, forgets = OnlineWindows(short), OnlineWindows(short)
    feed(remembers, rows)
    feed(forgets, rows)
    forgets.forget(since)
    feed(forgets, rows)
    # The longest reach: a week whose labels take a week. At its very edge an event is out.
    reached = [row for row in rows if row["time"] > since - pd.Timedelta(days=14)]
    assert len(forgets) == len(reached)
    asked = [row for row in rows if row["time"] >= since]
    assert [forgets.values(row) for row in asked] == [remembers.values(row) for row in asked]


@thorough
@given(histories)
def test_the_twelve_features_are_equal_both_ways(drawn):
    table = table_of(drawn)
    state = OnlineWindows(windows_of())
    feed(state, table.to_dict("records"))
    online = [list(online_features(state, row).values()) for row in table.to_dict("records")]
    assert feature_table(table).to_numpy().tolist() == online


@pytest.mark.parametrize("seed", [1, 2])
def test_the_twelve_features_of_a_simulated_history_are_equal_both_ways(seed):
    table = simulate(4000, seed=seed, fraud_rate=0.1, customers=60, merchants=30)
    offline = feature_table(table)
    assert tuple(offline.columns) == FEATURES
    assert np.isfinite(offline.to_numpy()).all()
    state = OnlineWindows(windows_of())
    for row, values in zip(table.to_dict("records"), offline.to_numpy().tolist(), strict=True):
        assert list(online_features(state, row).values()) == values
        feed(state, [row])
