"""Simulated transactions: repeatable, at the asked rate, and neither too easy nor too hard."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score, roc_auc_score
from threadpoolctl import threadpool_limits

from companion.transactions import COLUMNS, SimulationError, feature_matrix, simulate

SIZE = 20_000


@pytest.fixture(scope="module")
def table():
    return simulate(SIZE, seed=1)


def by_customer(frame):
    return frame.groupby("customer_id")["usual_amount"].first()


def by_merchant(frame):
    return frame.groupby("merchant_id")["category"].first().astype("str")


def test_columns_and_types_are_those_of_the_schema(table):
    assert {name: str(dtype) for name, dtype in table.dtypes.items()} == COLUMNS


def test_rows_are_in_order_of_time_and_inside_the_period(table):
    assert len(table) == SIZE
    assert table["time"].is_monotonic_increasing
    assert table["transaction_id"].tolist() == list(range(SIZE))
    period = table["time"].min(), table["time"].max()
    assert pd.Timestamp("2026-01-05", tz="UTC") <= period[0]
    assert period[1] < pd.Timestamp("2026-02-04", tz="UTC")


def test_amounts_and_distances_are_possible(table):
    assert table["amount"].ge(0.01).all()
    assert table["usual_amount"].gt(0).all()
    assert table["distance_km"].ge(0).all()
    assert not table.isna().any().any()


def test_what_is_derived_from_the_time_agrees_with_it(table):
    assert (table["hour"] == table["time"].dt.hour).all()
    assert (table["is_night"] == (table["hour"] < 6)).all()
    assert (table["is_weekend"] == (table["time"].dt.dayofweek >= 5)).all()


def test_the_gap_is_that_to_the_same_customers_previous_transaction(table):
    one = table[table["customer_id"] == 3]
    expected = one["time"].diff().dt.total_seconds().div(60).fillna(30 * 24 * 60.0)
    assert np.allclose(one["minutes_since_previous"], expected)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.03, 0.10])
def test_the_fraud_rate_is_met_exactly(rate):
    assert simulate(SIZE, seed=0, fraud_rate=rate)["is_fraud"].sum() == round(SIZE * rate)


def test_the_same_seed_gives_the_same_rows_in_another_process():
    code = "from companion.transactions import simulate; print(simulate(500, seed=7).to_csv())"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert other.stdout == simulate(500, seed=7).to_csv() + "\n"


def test_the_global_random_state_neither_matters_nor_changes():
    np.random.seed(0)
    before = simulate(500, seed=7)
    drawn = np.random.random()
    np.random.seed(0)
    assert np.random.random() == drawn
    assert_frame_equal(simulate(500, seed=7), before)


def test_another_seed_gives_other_rows():
    assert not simulate(500, seed=7).equals(simulate(500, seed=8))


def test_more_merchants_change_no_customer():
    few = simulate(5000, seed=2, customers=60, merchants=20)
    many = simulate(5000, seed=2, customers=60, merchants=80)
    assert by_customer(few).equals(by_customer(many))


def test_one_more_customer_changes_no_other_customer_and_no_merchant():
    before = simulate(5000, seed=2, customers=60, merchants=20)
    after = simulate(5000, seed=2, customers=61, merchants=20)
    assert by_customer(after).loc[:59].equals(by_customer(before))
    assert by_merchant(after).equals(by_merchant(before))


@pytest.mark.parametrize("rate", [0, 0.0009, 0.11, -1, float("nan")])
def test_a_fraud_rate_out_of_range_is_refused(rate):
    with pytest.raises(SimulationError) as caught:
        simulate(SIZE, seed=0, fraud_rate=rate)
    assert caught.value.parameter == "fraud_rate"


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("n", 0),
        ("n", 1000.0),
        ("n", 10),
        ("seed", -1),
        ("seed", None),
        ("days", 0),
        ("days", True),
        ("customers", 0),
        ("merchants", 0),
    ],
)
def test_a_senseless_argument_is_named(parameter, value):
    with pytest.raises(SimulationError) as caught:
        simulate(**({"n": 1000, "seed": 0} | {parameter: value}))
    assert caught.value.parameter == parameter
    assert caught.value.value is value


def test_the_smallest_table_that_holds_one_fraud_can_be_made():
    assert simulate(10, seed=0, fraud_rate=0.1, days=1)["is_fraud"].sum() == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_single_raw_column_gives_the_fraud_away(seed):
    table = simulate(SIZE, seed=seed)
    raw = table.select_dtypes(["number", "bool"]).drop(columns="is_fraud")
    areas = {name: roc_auc_score(table["is_fraud"], raw[name]) for name in raw}
    assert max(max(area, 1 - area) for area in areas.values()) < 0.85


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_boosted_trees_find_much_of_the_fraud_and_not_all_of_it(seed):
    X, y = feature_matrix(simulate(SIZE, seed=seed))
    earlier = slice(0, SIZE * 7 // 10)
    later = slice(SIZE * 7 // 10, SIZE)
    model = HistGradientBoostingClassifier(learning_rate=0.05, max_depth=4, random_state=0)
    with threadpool_limits(1):  # on few and busy cores more threads only wait for each other
        model.fit(X[earlier], y[earlier])
        precision = average_precision_score(y[later], model.predict_proba(X[later])[:, 1])
    assert 0.4 < precision < 0.8
