"""Simulated transactions: repeatable, at the asked rate, and neither too easy nor too hard."""

import subprocess
import sys
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from numpy.random import SeedSequence
from pandas.testing import assert_frame_equal
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from companion.features import FEATURES, feature_matrix
from companion.transactions import (
    CATEGORIES,
    COLUMNS,
    FRAUD_SCENARIOS,
    LEGITIMATE,
    SCENARIOS,
    SimulationError,
    simulate,
)
from companion.transactions.population import draw_customers, draw_land, draw_merchants

SIZE = 20_000
START = pd.Timestamp("2026-01-05", tz="UTC")


@pytest.fixture(scope="module")
def table():
    return simulate(SIZE, seed=1)


@pytest.fixture(scope="module", params=[1, 2, 3])
def large(request):
    return simulate(60_000, seed=request.param)


def rows_of(table, scenario):
    return table[table["scenario"] == scenario]


def minutes_since_previous(table):
    """Of the same customer."""
    return table.groupby("customer_id")["time"].diff().dt.total_seconds() / 60


def by_merchant(frame):
    return frame.groupby("merchant_id")["category"].first().astype("str")


# The table


def test_columns_and_types_are_those_of_the_schema(table):
    types = {name: str(dtype) for name, dtype in table.dtypes.items()}
    assert types == COLUMNS
    assert list(types) == list(COLUMNS)
    assert tuple(table["category"].cat.categories) == CATEGORIES
    assert tuple(table["scenario"].cat.categories) == SCENARIOS


def test_rows_are_in_order_of_time_and_inside_the_period(table):
    assert len(table) == SIZE
    assert table["time"].is_monotonic_increasing
    assert table["transaction_id"].tolist() == list(range(SIZE))
    assert table["time"].min() >= START
    assert table["time"].max() < START + pd.Timedelta(days=90)


@pytest.mark.parametrize("days", [1, 3, 5, 7, 30, 365])
def test_every_length_of_period_is_filled_and_not_left(days):
    time = simulate(2000, seed=4, days=days, fraud_rate=0.1)["time"]
    assert time.min() >= START
    assert START + pd.Timedelta(days=days * 0.9) < time.max() < START + pd.Timedelta(days=days)


def test_amounts_are_whole_cents_and_distances_possible(table):
    assert table["amount"].ge(0.01).all()
    assert np.allclose(table["amount"] * 100, (table["amount"] * 100).round(), atol=1e-6)
    assert table["distance_km"].ge(0).all()
    assert not table.drop(columns="label_time").isna().any().any()


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.03, 0.10])
def test_the_fraud_rate_is_met_exactly(rate):
    assert simulate(SIZE, seed=0, fraud_rate=rate)["is_fraud"].sum() == round(SIZE * rate)


# Repeatable


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


def test_one_more_customer_changes_no_merchant():
    before = simulate(5000, seed=2, customers=60, merchants=20)
    after = simulate(5000, seed=2, customers=61, merchants=20)
    assert by_merchant(after).equals(by_merchant(before))


def test_a_customer_is_the_same_however_many_others_there_are():
    land = draw_land(SeedSequence(5))
    few, many = (draw_customers(count, 90, land, SeedSequence(6)) for count in (60, 61))
    for field in fields(few):
        assert np.array_equal(getattr(many, field.name)[:60], getattr(few, field.name)), field.name


def test_a_merchant_is_the_same_however_many_others_there_are():
    land = draw_land(SeedSequence(5))
    few, many = (draw_merchants(count, land, SeedSequence(6)) for count in (20, 21))
    for field in fields(few):
        assert np.array_equal(getattr(many, field.name)[:20], getattr(few, field.name)), field.name


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


def test_one_customer_and_one_merchant_suffice():
    table = simulate(200, seed=0, fraud_rate=0.1, customers=1, merchants=1)
    assert set(table["customer_id"]) == set(table["merchant_id"]) == {0}


# Owners


def test_owners_sleep_at_night_and_thieves_do_not(table):
    night = (table["time"].dt.hour < 6).groupby(table["scenario"], observed=True).mean()
    assert night[LEGITIMATE] < 0.12
    assert night["card_testing"] > 0.2


def test_customers_keep_days_and_weeks_of_their_own():
    own = rows_of(simulate(SIZE, seed=2, customers=20), LEGITIMATE)
    weekends = (own["time"].dt.dayofweek >= 5).groupby(own["customer_id"]).mean()
    nights = (own["time"].dt.hour < 6).groupby(own["customer_id"]).mean()
    # With about 970 purchases each, chance alone would spread these by 0.014 and 0.009.
    assert weekends.std() > 0.04
    assert nights.std() > 0.04


def test_owners_journeys_lead_far_from_home(table):
    far = rows_of(table, LEGITIMATE)["distance_km"] > 60
    assert 0.03 < far.mean() < 0.15


def test_an_owners_device_is_nobody_elses(table):
    users = rows_of(table, LEGITIMATE).groupby("device_id")["customer_id"].nunique()
    assert users.max() == 1


def test_owners_have_a_few_devices_and_now_and_then_a_new_one(table):
    own = rows_of(table, LEGITIMATE)
    assert 1.5 < own.groupby("customer_id")["device_id"].nunique().mean() < 4
    later = own[own["time"] > START + pd.Timedelta(days=60)]
    first_use = ~own.duplicated(["customer_id", "device_id"])
    assert 0.005 < first_use[later.index].mean() < 0.05


# Frauds


def test_every_fraud_carries_its_scenario_and_nothing_else_does(table):
    assert (table["is_fraud"] == (table["scenario"] != LEGITIMATE)).all()
    counts = table["scenario"].value_counts()
    assert counts[list(FRAUD_SCENARIOS)].min() >= 0.1 * table["is_fraud"].sum()


def test_card_testing_is_tiny_online_and_fast(table):
    tests = rows_of(table, "card_testing")
    assert tests["is_online"].all()
    assert tests["amount"].median() < 0.2 * rows_of(table, LEGITIMATE)["amount"].median()
    assert minutes_since_previous(table)[tests.index].median() < 20


def test_a_stolen_card_is_used_dearly_far_away_and_for_hours(table):
    spree, owners = rows_of(table, "stolen_card"), rows_of(table, LEGITIMATE)
    assert spree["amount"].median() > 3 * owners["amount"].median()
    assert spree["distance_km"].median() > 10 * owners["distance_km"].median()
    assert 10 < minutes_since_previous(table)[spree.index].median() < 180


def test_cards_of_a_compromised_merchants_customers_are_used_after_they_paid_there(table):
    used = rows_of(table, "compromised_merchant")
    merchants = set(used["merchant_id"])
    paid = rows_of(table, LEGITIMATE)
    paid_there = paid[paid["merchant_id"].isin(merchants)].groupby("customer_id")["time"].min()
    earlier = used["customer_id"].map(paid_there) < used["time"]
    assert earlier.mean() > 0.95


@pytest.mark.parametrize("scenario", ["compromised_merchant", "collusion"])
def test_gangs_keep_to_a_few_merchants(table, scenario):
    per_merchant = rows_of(table, scenario)["merchant_id"].value_counts()
    assert len(per_merchant) <= 12
    assert per_merchant.median() >= 5


@pytest.mark.parametrize("days", [1, 90])
def test_few_frauds_spare_no_scenario_its_shape(days):
    table = simulate(1000, seed=3, days=days, fraud_rate=0.03)
    assert set(table.loc[table["is_fraud"], "scenario"]) == set(FRAUD_SCENARIOS)


def test_a_takeover_comes_from_devices_that_the_owner_never_had_and_creeps_up(table):
    taken = rows_of(table, "account_takeover")
    assert not set(taken["device_id"]) & set(rows_of(table, LEGITIMATE)["device_id"])
    step = taken.groupby("customer_id").cumcount()
    owners = rows_of(table, LEGITIMATE)
    usual = owners.groupby("customer_id")["amount"].median()
    factor = np.log(taken["amount"] / taken["customer_id"].map(usual))
    assert factor[step >= 6].mean() > factor[step <= 2].mean() + 0.5


def test_collusion_looks_ordinary_row_by_row(table):
    ring, owners = rows_of(table, "collusion"), rows_of(table, LEGITIMATE)
    usual = owners.groupby("category", observed=True)["amount"].median()
    assert 0.5 < (ring["amount"] / ring["category"].map(usual).astype(float)).median() < 2
    assert ring["distance_km"].median() < 2 * owners["distance_km"].median()
    assert ring["device_id"].isin(owners["device_id"]).mean() > 0.9


def test_frauds_are_as_frequent_at_the_end_of_the_period_as_before(large):
    last = large["time"] > START + pd.Timedelta(days=63)
    assert 0.8 < large["is_fraud"][last].mean() / large["is_fraud"][~last].mean() < 1.25


# Not too easy, not too hard


def test_no_single_raw_column_gives_the_fraud_away(large):
    raw = large.select_dtypes(["number", "bool"]).drop(columns="is_fraud")
    raw = raw.assign(category=large["category"].cat.codes)
    areas = {name: roc_auc_score(large["is_fraud"], raw[name]) for name in raw}
    assert max(max(area, 1 - area) for area in areas.values()) < 0.85


def average_precision(model, table, features):
    """Trained on the first 56 days, tested on those from day 63 on."""
    X, y = feature_matrix(table)
    day = (table["time"] - START) / pd.Timedelta(days=1)
    earlier, later = day < 56, day >= 63
    with threadpool_limits(1):  # on few and busy cores more threads only wait for each other
        model.fit(X.loc[earlier, features], y[earlier])
        scores = model.predict_proba(X.loc[later, features])[:, 1]
    return average_precision_score(y[later], scores)


def boosting():
    return HistGradientBoostingClassifier(
        learning_rate=0.06, max_iter=150, max_leaf_nodes=15, min_samples_leaf=30, random_state=0
    )


@pytest.fixture(scope="module")
def found(large):
    """Average precision of boosted trees on all twelve features."""
    return average_precision(boosting(), large, list(FEATURES))


def test_boosted_trees_find_much_of_the_fraud_and_not_all_of_it(found):
    assert 0.45 < found < 0.75


def test_a_straight_line_finds_less(large, found):
    line = make_pipeline(StandardScaler(), LogisticRegression())
    assert average_precision(line, large, list(FEATURES)) < found - 0.08


def test_without_the_history_of_merchants_less_is_found(large, found):
    without = [name for name in FEATURES if name != "merchant_risk_30d"]
    assert average_precision(boosting(), large, without) < found - 0.03


def test_single_rows_without_any_history_say_little(large, found):
    row = ["log_amount", "log_distance_km", "hour_sin", "hour_cos", "is_weekend", "is_online"]
    assert average_precision(boosting(), large, row) < found - 0.15
