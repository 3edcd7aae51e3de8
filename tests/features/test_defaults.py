"""The twelve features: what each means, and which of them a table allows."""

import numpy as np
import pandas as pd
import pytest

from companion.features.defaults import (
    FEATURES,
    MissingWindowsError,
    UnknownFeatureError,
    available_features,
    feature_matrix,
    feature_table,
    online_features,
    windows_of,
)
from companion.features.history import InvalidValuesError
from companion.features.online import OnlineWindows
from companion.transactions import COLUMNS, MissingColumnsError, simulate

MONDAY = pd.Timestamp("2026-03-02", tz="UTC")


@pytest.fixture(scope="module")
def simulated():
    return simulate(2000, seed=1)


def table(hours, **columns):
    rows = len(hours)
    return pd.DataFrame(
        {
            "transaction_id": range(rows),
            "time": MONDAY + pd.to_timedelta(hours, unit="h"),
            "customer_id": [7] * rows,
            "merchant_id": [1] * rows,
            "device_id": [1] * rows,
            "amount": [20.0] * rows,
            "distance_km": [0.0] * rows,
            "is_online": [False] * rows,
            "is_fraud": [False] * rows,
        }
        | columns
    )


def column(name, transactions):
    return feature_table(transactions, [name])[name].tolist()


def test_the_matrix_has_the_twelve_as_finite_doubles_and_the_labels_as_whole_numbers(simulated):
    X, y = feature_matrix(simulated)
    assert tuple(X.columns) == FEATURES
    assert len(FEATURES) == 12
    assert set(X.dtypes) == {np.dtype("float64")}
    assert np.isfinite(X).all().all()
    assert y.dtype == np.dtype("int64")
    assert y.tolist() == simulated["is_fraud"].tolist()


def test_a_part_of_the_features_is_those_columns_of_all(simulated):
    X, _ = feature_matrix(simulated)
    some = ["merchant_risk_30d", "log_amount", "hour_cos"]
    assert feature_table(simulated, some).equals(X[some])


def test_the_index_is_kept(simulated):
    shuffled = simulated.sample(frac=1, random_state=0)
    X, y = feature_matrix(shuffled)
    assert X.index.equals(shuffled.index)
    assert y.index.equals(shuffled.index)


def test_the_truth_is_no_input(simulated):
    X, _ = feature_matrix(simulated)
    turned, _ = feature_matrix(
        simulated.assign(is_fraud=~simulated["is_fraud"], scenario="collusion")
    )
    assert turned.equals(X)


def test_an_amount_counts_against_the_mean_of_thirty_days_before():
    transactions = table([0, 1, 2], amount=[10.0, 30.0, 40.0])
    expected = [0, np.log(3), np.log(2)]
    assert column("log_amount_to_habit", transactions) == pytest.approx(expected)


def test_refunds_and_free_goods_have_a_logarithm():
    transactions = table([0, 1, 2], amount=[0.0, -5.0, 1.0])
    assert column("log_amount", transactions) == pytest.approx([np.log(0.01)] * 2 + [0])
    assert np.isfinite(column("log_amount_to_habit", transactions)).all()


def test_the_gap_to_the_previous_transaction_is_at_most_thirty_days():
    gaps = np.expm1(column("log_minutes_since_previous", table([0, 0.5, 0.5, 31 * 24])))
    month = 30 * 24 * 60
    assert gaps == pytest.approx([month, 30, 0, month])


def test_midnight_lies_beside_the_hour_before():
    points = feature_table(table([0, 12, 23]), ["hour_sin", "hour_cos"]).to_numpy()
    to_midnight = np.linalg.norm(points - points[0], axis=1)
    assert to_midnight[2] < 0.3 < 1.9 < to_midnight[1]


def test_saturday_and_sunday_are_the_weekend():
    days = [0, 4, 4.999, 5, 6.999, 7]
    assert column("is_weekend", table([day * 24 for day in days])) == [0, 0, 0, 1, 1, 0]


def test_a_weekend_before_1970_is_one_too():
    time = pd.to_datetime(["1969-12-27", "1969-12-29"], utc=True)  # a Saturday, a Monday
    assert column("is_weekend", table([0, 0], time=time)) == [1, 0]


def test_a_device_is_new_when_its_customer_used_only_others():
    transactions = table(
        [0, 1, 2, 3, 4, 91 * 24],
        customer_id=[7, 7, 7, 7, 8, 7],
        device_id=[1, 1, 2, 2, 2, 1],
    )
    # The first is not new (nothing to compare with), nor is that of another customer; and after 90
    # days nothing is left to compare with.
    assert column("is_new_device", transactions) == [0, 0, 1, 0, 0, 0]


def test_counts_are_of_the_customer_and_count_the_transaction_itself():
    transactions = table([0, 1, 25, 6 * 24], customer_id=[7, 7, 7, 7])
    assert column("customer_count_1d", transactions) == [1, 2, 1, 1]
    assert column("customer_count_7d", transactions) == [1, 2, 3, 4]


def test_a_merchants_risk_is_what_was_known_a_week_later():
    transactions = table([0, 1, 7 * 24, 7 * 24 + 1], is_fraud=[True, False, False, True])
    assert column("merchant_risk_30d", transactions) == [0, 0, 1, 0.5]


def test_what_a_table_allows_is_told_from_its_columns():
    assert available_features(COLUMNS) == FEATURES
    assert available_features([]) == ()
    poor = ["time", "customer_id", "amount"]
    assert available_features(poor) == (
        "log_amount",
        "log_amount_to_habit",
        "log_minutes_since_previous",
        "hour_sin",
        "hour_cos",
        "is_weekend",
        "customer_count_1d",
        "customer_count_7d",
    )
    assert "merchant_risk_30d" in available_features(["time", "merchant_id", "label_time"])


def test_what_is_available_can_be_computed(simulated):
    for dropped in ("device_id", "distance_km", "merchant_id", "customer_id", "time"):
        part = simulated.drop(columns=dropped)
        names = available_features(part.columns)
        assert dropped == "time" or len(names) > 0
        assert list(feature_table(part, names).columns) == list(names)


def test_missing_columns_are_named_all_at_once(simulated):
    part = simulated.drop(columns=["device_id", "distance_km", "is_fraud"])
    with pytest.raises(MissingColumnsError) as caught:
        feature_matrix(part)
    assert set(caught.value.columns) == {"device_id", "distance_km", "is_fraud"}
    with pytest.raises(MissingColumnsError) as caught:
        feature_table(part, ["is_new_device", "log_amount"])
    assert caught.value.columns == ("device_id",)


def test_a_missing_number_is_refused_by_row():
    with pytest.raises(InvalidValuesError, match="distance_km") as caught:
        feature_table(table([0, 1], distance_km=[1.0, None]))
    assert caught.value.rows == (1,)


def test_an_unknown_feature_is_refused_with_those_there_are():
    with pytest.raises(UnknownFeatureError, match="merchant_risk_30d") as caught:
        windows_of(["log_amount", "shoe_size"])
    assert caught.value.names == ("shoe_size",)


def test_online_a_missing_column_is_named():
    row = table([0]).drop(columns="is_online").iloc[0].to_dict()
    with pytest.raises(MissingColumnsError) as caught:
        online_features(OnlineWindows(windows_of()), row)
    assert caught.value.columns == ("is_online",)


def test_online_a_state_that_keeps_too_little_is_refused():
    state = OnlineWindows(windows_of(["customer_count_1d"]))
    with pytest.raises(MissingWindowsError) as caught:
        online_features(state, table([0]).iloc[0].to_dict(), ["customer_count_7d"])
    assert caught.value.names == ("customer_count_7d",)


def test_features_without_a_past_need_no_history():
    assert feature_table(table([12]), ["hour_cos"]).iloc[0, 0] == pytest.approx(-1)
