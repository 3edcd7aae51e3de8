"""Injected faults: each changes what it says from its date on, and nothing else."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from companion.transactions import (
    MissingColumnsError,
    NaiveTimeError,
    known_fraud,
    simulate,
)
from companion.transactions.faults import (
    CONTACTLESS_LIMIT,
    FAULTS,
    FaultError,
    adversarial_adaptation,
    concept_drift,
    covariate_shift,
    label_shift,
    late_labels,
    null_to_zero,
    unit_error,
)

START = datetime(2026, 2, 20, tzinfo=UTC)
LABELS = ["is_fraud", "scenario", "label_time"]
each_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


@pytest.fixture(scope="module")
def table():
    return simulate(10_000, seed=1, fraud_rate=0.10)


def after(frame):
    return frame[frame["time"] >= START]


def without(frame, *columns):
    return frame.drop(columns=list(columns))


def assert_same(left, right):
    # `assert_frame_equal` looks at categories one by one, which takes a hundred times as long.
    assert left.dtypes.equals(right.dtypes)
    unequal = [name for name in left if not left[name].equals(right[name])]
    assert not unequal


# All of them


@each_fault
def test_the_table_given_stays_as_it_was(table, fault):
    before = table.copy(deep=True)
    assert fault(table, start=START, seed=1) is not table
    assert_same(table, before)


@each_fault
def test_something_changes_from_the_start_on_and_nothing_before(table, fault):
    broken = fault(table, start=START, seed=1)
    assert_same(broken[broken["time"] < START], table[table["time"] < START])
    assert not after(broken).equals(after(table))


@each_fault
def test_types_and_columns_stay(table, fault):
    assert fault(table, start=START, seed=1).dtypes.equals(table.dtypes)


@each_fault
def test_the_same_seed_breaks_the_same_rows_and_another_seed_others(table, fault):
    once, again, other = (fault(table, start=START, strength=0.5, seed=s) for s in (7, 7, 8))
    assert_same(once, again)
    assert not once.equals(other)


@each_fault
def test_rows_that_stay_keep_their_index_even_where_it_repeats(table, fault):
    doubled = table.set_axis(np.arange(len(table)) // 2)
    broken = fault(doubled, start=START, seed=1)
    plain = fault(table, start=START, seed=1)
    assert np.array_equal(broken["transaction_id"], plain["transaction_id"])
    assert np.array_equal(broken.index, plain.index // 2)


@pytest.mark.parametrize("fault", [f for n, f in FAULTS.items() if n != "label_shift"])
def test_at_strength_nought_nothing_changes(table, fault):
    assert_same(fault(table, start=START, strength=0, seed=1), table)


@each_fault
def test_a_start_after_the_last_row_is_refused(table, fault):
    with pytest.raises(FaultError) as caught:
        fault(table, start=datetime(2027, 1, 1, tzinfo=UTC), seed=1)
    assert caught.value.parameter == "start"


@each_fault
def test_a_start_without_a_zone_is_refused(table, fault):
    with pytest.raises(NaiveTimeError) as caught:
        fault(table, start=datetime(2026, 2, 20), seed=1)
    assert caught.value.parameter == "start"


@each_fault
@pytest.mark.parametrize("seed", [-1, 1.5, True, None])
def test_a_seed_that_is_no_whole_number_is_refused(table, fault, seed):
    with pytest.raises(FaultError) as caught:
        fault(table, start=START, seed=seed)
    assert caught.value.parameter == "seed"
    assert caught.value.value is seed


@each_fault
@pytest.mark.parametrize("strength", [-0.1, float("nan")])
def test_a_strength_out_of_range_is_refused(table, fault, strength):
    with pytest.raises(FaultError) as caught:
        fault(table, start=START, strength=strength, seed=1)
    assert caught.value.parameter == "strength"


@each_fault
def test_a_missing_column_is_named(table, fault):
    with pytest.raises(MissingColumnsError) as caught:
        fault(table[["transaction_id", "customer_id"]], start=START, seed=1)
    assert "time" in caught.value.columns


@pytest.mark.parametrize(
    "fault", [concept_drift, adversarial_adaptation, null_to_zero, unit_error, late_labels]
)
def test_a_share_above_one_is_refused(table, fault):
    with pytest.raises(FaultError, match="from 0 to 1"):
        fault(table, start=START, strength=1.01, seed=1)


# Covariate shift


def test_covariate_shift_makes_high_values_commoner(table):
    shifted = covariate_shift(table, start=START, seed=1)
    assert after(shifted)["amount"].median() > 1.3 * after(table)["amount"].median()


def test_covariate_shift_leaves_the_share_of_fraud_at_each_amount(table):
    shifted = covariate_shift(table, start=START, seed=1)
    edges = [0, 5, 20, 60, 200, np.inf]

    def rate(frame):
        rows = after(frame)
        bins = pd.cut(rows["amount"], edges)
        return rows.groupby(bins, observed=False)["is_fraud"].agg(["mean", "size"])

    was, now = rate(table), rate(shifted)
    error = np.sqrt(was["mean"] * (1 - was["mean"]) / now["size"])
    assert ((now["mean"] - was["mean"]).abs() < 3.5 * error).all()


def test_covariate_shift_keeps_rows_whole(table):
    shifted = covariate_shift(table, start=START, seed=1)
    assert_same(shifted, table.loc[shifted.index])


def test_covariate_shift_of_a_truth_value(table):
    shifted = covariate_shift(table, start=START, seed=1, column="is_online")
    assert after(shifted)["is_online"].mean() > after(table)["is_online"].mean() + 0.1


def test_covariate_shift_of_a_column_without_order_is_refused(table):
    with pytest.raises(FaultError) as caught:
        covariate_shift(table, start=START, seed=1, column="category")
    assert caught.value.parameter == "column"


# Label shift


@pytest.mark.parametrize("strength", [0.1, 0.5, 2, 5])
def test_label_shift_multiplies_the_fraud_rate(table, strength):
    shifted = label_shift(table, start=START, strength=strength, seed=1)
    expected = strength * after(table)["is_fraud"].mean()
    assert after(shifted)["is_fraud"].mean() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("strength", [0.5, 2])
def test_label_shift_leaves_what_frauds_and_others_look_like(table, strength):
    shifted = label_shift(table, start=START, strength=strength, seed=1)
    for label in (False, True):
        was, now = (f[f["is_fraud"] == label]["amount"] for f in (after(table), after(shifted)))
        both = np.concatenate([was, now])
        side = np.repeat([0, 1], [len(was), len(now)])
        assert roc_auc_score(side, both) == pytest.approx(0.5, abs=0.03)


def test_label_shift_by_one_changes_nothing(table):
    assert_same(label_shift(table, start=START, strength=1, seed=1), table)


@pytest.mark.parametrize("strength", [0, 30])
def test_a_label_shift_beyond_all_or_nothing_is_refused(table, strength):
    with pytest.raises(FaultError) as caught:
        label_shift(table, start=START, strength=strength, seed=1)
    assert caught.value.parameter == "strength"


def test_a_label_shift_where_there_is_no_fraud_is_refused(table):
    with pytest.raises(FaultError) as caught:
        label_shift(table[~table["is_fraud"]], start=START, seed=1)
    assert caught.value.parameter == "start"


def test_a_strong_label_shift_leaves_one_fraud(table):
    shifted = label_shift(table, start=START, strength=1e-6, seed=1)
    assert after(shifted)["is_fraud"].sum() == 1


# Concept drift


def test_concept_drift_moves_labels_alone(table):
    drifted = concept_drift(table, start=START, seed=1)
    assert_same(without(drifted, *LABELS), without(table, *LABELS))
    assert after(drifted)["is_fraud"].sum() == after(table)["is_fraud"].sum()
    assert drifted["scenario"].value_counts().equals(table["scenario"].value_counts())


def test_concept_drift_makes_another_kind_of_row_fraud(table):
    drifted = concept_drift(table, start=START, strength=0.5, seed=1)
    new = drifted["is_fraud"] & ~table["is_fraud"]
    assert new.sum() == round(after(table)["is_fraud"].sum() * 0.5)
    rows = drifted[new]
    assert not rows["is_online"].any()
    assert rows["amount"].le(CONTACTLESS_LIMIT).all()
    assert rows["time"].dt.dayofweek.ge(5).all()


def test_concept_drift_keeps_labels_consistent(table):
    drifted = concept_drift(table, start=START, seed=1)
    assert (drifted["is_fraud"] == (drifted["scenario"] != "legitimate")).all()
    assert drifted.loc[~drifted["is_fraud"], "label_time"].isna().all()
    delays = [np.sort((f["label_time"] - f["time"]).dropna()) for f in (table, drifted)]
    assert np.array_equal(*delays)


def test_concept_drift_without_enough_purchases_to_move_to_is_refused(table):
    online = table[table["is_online"]]
    with pytest.raises(FaultError, match="0 such purchases"):
        concept_drift(online, start=START, seed=1)


# Adversarial adaptation


def test_thieves_stay_below_the_threshold(table):
    adapted = adversarial_adaptation(table, start=START, strength=1, seed=1, threshold=40)
    moved = adapted["amount"] != table["amount"]
    assert (moved == (table["is_fraud"] & table["amount"].ge(40) & table["time"].ge(START))).all()
    assert adapted["amount"][moved].between(31.99, 40, inclusive="left").all()


def test_adaptation_of_a_part_leaves_the_rest(table):
    adapted = adversarial_adaptation(table, start=START, strength=0.25, seed=1)
    dear = after(table)["is_fraud"] & after(table)["amount"].ge(50)
    assert (adapted["amount"] != table["amount"]).sum() == round(dear.sum() * 0.25)


def test_adaptation_changes_no_owner_no_label_and_no_other_column(table):
    adapted = adversarial_adaptation(table, start=START, seed=1)
    assert_same(without(adapted, "amount"), without(table, "amount"))
    assert adapted["amount"][~table["is_fraud"]].equals(table["amount"][~table["is_fraud"]])


def test_adapted_amounts_are_whole_cents(table):
    cents = adversarial_adaptation(table, start=START, seed=1)["amount"] * 100
    assert np.allclose(cents, cents.round(), atol=1e-6)


@pytest.mark.parametrize("threshold", [0, 0.01, -5, float("nan")])
def test_a_threshold_that_leaves_no_amount_is_refused(table, threshold):
    with pytest.raises(FaultError) as caught:
        adversarial_adaptation(table, start=START, seed=1, threshold=threshold)
    assert caught.value.parameter == "threshold"


# Null to zero, unit × 100


def test_null_to_zero_puts_nought_into_the_stated_share(table):
    broken = null_to_zero(table, start=START, strength=0.4, seed=1)
    assert (after(broken)["distance_km"] == 0).mean() == pytest.approx(0.4, abs=0.001)
    assert_same(without(broken, "distance_km"), without(table, "distance_km"))
    assert not broken["distance_km"].isna().any()


def test_null_to_zero_leaves_the_other_values(table):
    broken = null_to_zero(table, start=START, seed=1)["distance_km"]
    assert broken[broken > 0].equals(table["distance_km"][broken > 0])


def test_a_unit_error_hits_whole_merchants_by_the_factor(table):
    broken = unit_error(table, start=START, strength=0.3, seed=1)
    ratio = after(broken)["amount"] / after(table)["amount"]
    per_merchant = ratio.groupby(after(table)["merchant_id"])
    assert np.allclose(per_merchant.min(), per_merchant.max())
    wrong = np.isclose(per_merchant.max(), 100)
    assert np.isclose(per_merchant.max()[~wrong], 1).all()
    assert wrong.mean() == pytest.approx(0.3, abs=0.01)


def test_a_unit_error_changes_its_column_alone(table):
    broken = unit_error(table, start=START, seed=1, column="distance_km", factor=0.001)
    assert_same(without(broken, "distance_km"), without(table, "distance_km"))


@pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf")])
def test_a_senseless_factor_is_refused(table, factor):
    with pytest.raises(FaultError) as caught:
        unit_error(table, start=START, seed=1, factor=factor)
    assert caught.value.parameter == "factor"


@pytest.mark.parametrize("fault", [null_to_zero, unit_error])
@pytest.mark.parametrize("column", ["is_online", "category", "customer_id"])
def test_a_column_that_holds_no_measurement_is_refused(table, fault, column):
    with pytest.raises(FaultError) as caught:
        fault(table, start=START, seed=1, column=column)
    assert caught.value.parameter == "column"


# Late labels


def test_late_labels_put_off_reports_and_nothing_else(table):
    late = late_labels(table, start=START, seed=1, days=20)
    delay = (after(late)["label_time"] - after(table)["label_time"]).dropna()
    assert (delay == pd.Timedelta(days=20)).all()
    assert_same(without(late, "label_time"), without(table, "label_time"))


def test_with_late_labels_less_is_known_at_an_instant(table):
    now = datetime(2026, 3, 15, tzinfo=UTC)
    late = late_labels(table, start=START, seed=1)
    assert known_fraud(late, now).sum() < known_fraud(table, now).sum()


def test_a_share_of_reports_is_late(table):
    late = late_labels(table, start=START, strength=0.5, seed=1)
    reported = after(table)["label_time"].notna().sum()
    changed = late["label_time"].notna() & (late["label_time"] != table["label_time"])
    assert changed.sum() == round(reported * 0.5)


@pytest.mark.parametrize("days", [-1, float("nan"), float("inf")])
def test_a_senseless_number_of_days_is_refused(table, days):
    with pytest.raises(FaultError) as caught:
        late_labels(table, start=START, seed=1, days=days)
    assert caught.value.parameter == "days"
