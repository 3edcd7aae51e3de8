"""Windows over a whole table: order, edges, kinds of columns, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from companion.features.definitions import WindowFeature
from companion.features.history import ConflictingEventError, InvalidValuesError
from companion.features.offline import stable_order, window_values
from companion.transactions import MissingColumnsError

COUNT = WindowFeature("n", ("customer_id",), 1, "count", counts_current=True)
EARLIER = WindowFeature("earlier", ("customer_id",), 1, "count")
SUM = WindowFeature("sum", ("customer_id",), 1, "sum", "amount", counts_current=True)
RISK = WindowFeature("risk", ("merchant_id",), 30, "risk", label_delay_days=7, neutral=0.75)


def table(hours, **columns):
    """One customer's transactions at these hours, with one merchant, a euro each."""
    rows = len(hours)
    return pd.DataFrame(
        {
            "transaction_id": range(rows),
            "time": pd.Timestamp("2026-03-01", tz="UTC") + pd.to_timedelta(hours, unit="h"),
            "customer_id": [7] * rows,
            "merchant_id": [1] * rows,
            "amount": [1.0] * rows,
            **columns,
        }
    )


def values(transactions, feature):
    return window_values(transactions, [feature])[feature.name].tolist()


def test_an_event_as_old_as_the_window_is_out():
    assert values(table([0, 23, 24, 25]), COUNT) == [1, 2, 2, 3]


def test_of_one_instant_the_greater_id_sees_the_others():
    transactions = table([5, 5, 5], transaction_id=[30, 10, 20])
    assert values(transactions, EARLIER) == [2, 0, 1]


def test_without_ids_rows_of_one_instant_stand_in_their_own_order():
    assert values(table([5, 5, 5]).drop(columns="transaction_id"), EARLIER) == [0, 1, 2]


def test_ids_may_be_text():
    transactions = table([5, 5, 5], transaction_id=["b", "c", "a"], customer_id=["x", "x", "y"])
    assert values(transactions, EARLIER) == [0, 1, 0]


def test_the_index_and_the_order_of_rows_are_kept():
    transactions = table([3, 1, 2]).set_index(pd.Index(["c", "a", "b"], name="who"))
    result = window_values(transactions, [COUNT, SUM])
    assert result.index.equals(transactions.index)
    assert result["n"].to_dict() == {"c": 3, "a": 1, "b": 2}
    assert list(result.columns) == ["n", "sum"]


def test_times_of_any_zone_and_unit_are_the_same_instants():
    utc = table([22, 23, 26])
    for time in (
        utc["time"].dt.tz_convert("Europe/Vienna"),
        utc["time"].dt.tz_localize(None),
        utc["time"].astype("datetime64[ns, UTC]"),
    ):
        assert values(utc.assign(time=time), COUNT) == values(utc, COUNT)


def test_ten_cents_a_thousand_times_are_a_hundred_euros():
    transactions = table([0] * 1000, amount=[0.1] * 1000)
    assert values(transactions, SUM)[-1] == 100.0 != sum([0.1] * 1000)


def test_a_risk_counts_only_what_was_reported_within_the_delay():
    days = np.array([0, 0, 0, 0, 7, 8, 36, 37])
    time = table(days * 24.0)["time"]
    reported = pd.Series(pd.NaT, index=range(8), dtype="datetime64[us, UTC]")
    reported[0] = time[0] + pd.Timedelta(days=7)
    reported[1] = time[1] + pd.Timedelta(days=8)  # too late to count at any time
    reported[7] = time[7]
    transactions = table(days * 24.0, label_time=reported)
    assert values(transactions, RISK) == [
        *[0.75] * 4,  # nothing is a week old: neutral
        *[1 / 4] * 2,  # days 7 and 8: of the four of day 0, one was reported in time
        1 / 6,  # day 36: and those of days 7 and 8
        0.0,  # day 37: the window begins after day 0
    ]


def test_without_times_of_labels_every_fraud_counts_after_the_delay():
    transactions = table([0, 0, 7 * 24 - 1, 7 * 24], is_fraud=[True, False, False, True])
    assert values(transactions, RISK) == [0.75, 0.75, 0.75, 0.5]


def test_a_history_without_any_report_has_no_risk():
    transactions = table([0, 7 * 24], label_time=[None, None])
    assert values(transactions, RISK) == [0.75, 0.0]


def test_a_row_that_is_there_twice_counts_once():
    transactions = table([0, 1, 2])
    twice = pd.concat([transactions, transactions.iloc[[1]]])
    assert values(twice, COUNT) == [1, 2, 3, 2]


@pytest.mark.parametrize(
    "changed", [{"amount": 2.0}, {"time": pd.Timestamp("2026-03-02", tz="UTC")}]
)
def test_one_id_with_two_contents_is_refused(changed):
    transactions = table([0, 1, 2])
    with pytest.raises(ConflictingEventError) as caught:
        window_values(pd.concat([transactions, transactions.iloc[[1]].assign(**changed)]), [COUNT])
    assert caught.value.event_id == 1


def test_all_missing_columns_are_named_at_once():
    with pytest.raises(MissingColumnsError) as caught:
        window_values(table([0]).drop(columns=["customer_id", "amount"]), [SUM, RISK])
    assert caught.value.columns == ("customer_id", "amount", "is_fraud")


@pytest.mark.parametrize(
    ("column", "bad"),
    [
        ("time", pd.NaT),
        ("customer_id", None),
        ("transaction_id", None),
        ("amount", np.inf),
        ("amount", None),
        ("amount", 1e17),
    ],
)
def test_values_that_no_feature_can_be_made_of_are_refused_by_column_and_row(column, bad):
    transactions = table([0, 1, 2]).set_index(pd.Index([10, 11, 12]))
    transactions[column] = transactions[column].astype(object).where([True, False, True], bad)
    if column == "time":
        transactions["time"] = pd.to_datetime(transactions["time"], utc=True)
    with pytest.raises(InvalidValuesError, match="first in row 11") as caught:
        window_values(transactions, [SUM])
    assert (caught.value.column, caught.value.rows) == (column, (11,))


def test_a_missing_label_is_not_taken_for_a_fraud():
    with pytest.raises(InvalidValuesError, match="is_fraud"):
        window_values(table([0, 1], is_fraud=[True, None]), [RISK])


def test_text_is_no_time():
    with pytest.raises(TypeError, match="time must hold times"):
        window_values(table([0]).assign(time="2026-03-01"), [COUNT])


def test_a_table_without_rows_gives_columns_without_rows():
    result = window_values(table([]), [COUNT, SUM, EARLIER])
    assert result.shape == (0, 3)
    assert set(result.dtypes) == {np.dtype("float64")}


@pytest.mark.parametrize("kinds", [1, 65_536, 65_537, 2**33])
def test_sorting_by_digits_is_a_stable_sort(kinds):
    codes = np.random.default_rng(0).integers(kinds, size=3000) // 7 * 7 % kinds
    assert stable_order(codes, kinds).tolist() == np.argsort(codes, kind="stable").tolist()
