"""Reasons that a person understands, and the smallest changes that turn a decision."""

import numpy as np
import pandas as pd
import pytest

from companion.features import FEATURES
from companion.models.explanations import (
    Explanation,
    InputError,
    reason_table,
    reasons,
    what_would_change,
)

USUAL = {
    "log_amount": np.log(40.0),
    "log_amount_to_habit": 0.0,
    "log_distance_km": np.log1p(3.0),
    "log_minutes_since_previous": np.log1p(300.0),
    "hour_sin": np.sin(2 * np.pi * 14 / 24),
    "hour_cos": np.cos(2 * np.pi * 14 / 24),
    "is_weekend": 0.0,
    "is_online": 0.0,
    "is_new_device": 0.0,
    "customer_count_1d": 1.0,
    "customer_count_7d": 4.0,
    "merchant_risk_30d": 0.0,
}


def explained(values, *, unit="probability", rows=1, **data):
    """An explanation in which `values` maps features to contributions and `data` to values."""
    table = pd.DataFrame([USUAL | data] * rows)
    contributions = pd.DataFrame([dict.fromkeys(table, 0.0) | values] * rows).to_numpy()
    output = 0.03 + contributions.sum(axis=1)
    return Explanation(
        contributions, 0.03, unit, table.to_numpy(), tuple(table), output, output.copy()
    )


def said(feature, value):
    """What is said about one feature with this value."""
    (reason,) = reasons(explained({feature: 0.1}, **{feature: value}))
    return reason.words


def test_we_have_words_for_every_default_feature():
    told = explained(dict.fromkeys(FEATURES, 0.1), rows=1)
    for reason in reasons(told, top=20):
        assert "=" not in reason.words, reason
    assert len(reasons(told, top=20)) == len(FEATURES) - 1, "the hour is one subject"


@pytest.mark.parametrize(
    ("feature", "value", "words"),
    [
        ("log_amount", np.log(1812.4), "amount €1,812.40"),
        ("log_amount_to_habit", np.log(3.1), "amount 3.1× this customer's habit"),
        ("log_amount_to_habit", np.log(0.25), "amount 0.25× this customer's habit"),
        ("log_amount_to_habit", 0.01, "amount as usual for this customer"),
        ("log_distance_km", np.log1p(212), "212 km from home"),
        ("log_distance_km", 0.0, "less than 1 km from home"),
        ("log_minutes_since_previous", 0.0, "less than a minute after the previous one"),
        ("log_minutes_since_previous", np.log1p(4), "4 min after the previous one"),
        ("log_minutes_since_previous", np.log1p(180), "3 h after the previous one"),
        ("log_minutes_since_previous", np.log1p(5 * 1440), "5 days after the previous one"),
        ("log_minutes_since_previous", np.log1p(30 * 1440), "none before it for 30 days"),
        ("is_weekend", 1.0, "at the weekend"),
        ("is_weekend", 0.0, "on a weekday"),
        ("is_online", 1.0, "online"),
        ("is_online", 0.0, "with the card present"),
        ("is_new_device", 1.0, "first time from this device"),
        ("is_new_device", 0.0, "from a known device"),
        ("customer_count_1d", 7.0, "7 transactions in 24 hours"),
        ("customer_count_1d", 1.0, "the only one in 24 hours"),
        ("customer_count_7d", 9.0, "9 transactions in 7 days"),
        ("merchant_risk_30d", 0.125, "12.5 % known fraud at this merchant"),
        ("merchant_risk_30d", 0.0, "no known fraud at this merchant"),
    ],
)
def test_values_are_told_in_units_of_everyday_life(feature, value, words):
    assert said(feature, value) == words


@pytest.mark.parametrize(
    ("minutes", "words"),
    [(0, "at 00:00"), (220, "at 03:40"), (720, "at 12:00"), (1439, "at 23:59")],
)
def test_the_hour_is_told_as_a_clock_shows_it(minutes, words):
    angle = 2 * np.pi * minutes / 1440
    told = explained(
        {"hour_sin": 0.1, "hour_cos": 0.05}, hour_sin=np.sin(angle), hour_cos=np.cos(angle)
    )
    (reason,) = reasons(told)
    assert reason.words == words
    assert reason.subject == "hour"
    assert reason.effect == pytest.approx(0.15)


def test_midnight_is_not_the_24th_hour():
    angle = 2 * np.pi * 1439.9 / 1440
    told = explained({"hour_sin": 0.1}, hour_sin=np.sin(angle), hour_cos=np.cos(angle))
    assert reasons(told)[0].words == "at 00:00"


def test_the_strongest_reason_comes_first_whatever_its_sign():
    told = explained({"log_amount": 0.1, "is_online": -0.3, "is_weekend": 0.2})
    assert [reason.subject for reason in reasons(told)] == ["is_online", "is_weekend", "log_amount"]
    assert [reason.raises for reason in reasons(told)] == [False, True, True]


def test_no_more_than_asked_for_and_none_without_effect():
    told = explained({"log_amount": 0.1, "is_online": -0.3})
    assert len(reasons(told, top=1)) == 1
    assert len(reasons(told, top=9)) == 2
    with pytest.raises(ValueError, match="at least 1"):
        reasons(told, top=0)


@pytest.mark.parametrize(
    ("effect", "unit", "text"),
    [
        (0.123, "probability", "+12.3 points"),
        (-0.05, "probability", "−5.0 points"),
        (np.log(3.2), "log-odds", "odds × 3.2"),
        (-np.log(4), "log-odds", "odds × 0.25"),
        (np.log(1234), "log-odds", "odds × 1,234"),
        (-30.0, "log-odds", "odds × 0.001"),
    ],
)
def test_the_effect_is_told_with_its_sign_and_unit(effect, unit, text):
    (reason,) = reasons(explained({"is_online": effect}, unit=unit, is_online=1.0))
    assert str(reason) == f"online ({text})"


def test_unknown_features_are_told_by_name_and_value():
    told = Explanation(
        np.array([[0.2]]),
        0.1,
        "probability",
        np.array([[17.25]]),
        ("velocity",),
        np.array([0.3]),
        np.array([0.3]),
    )
    assert reasons(told)[0].words == "velocity = 17.25"


def test_half_an_hour_is_a_feature_like_any_other():
    told = Explanation(
        np.array([[0.2]]),
        0.1,
        "probability",
        np.array([[0.5]]),
        ("hour_sin",),
        np.array([0.3]),
        np.array([0.3]),
    )
    assert reasons(told)[0].words == "hour_sin = 0.5"


def test_the_caller_may_know_better_words():
    told = explained({"merchant_risk_30d": 0.2})
    (reason,) = reasons(told, context={"merchant_risk_30d": "this shop is being investigated"})
    assert reason.words == "this shop is being investigated"


def test_the_table_says_for_all_rows_what_reasons_says_for_each():
    rng = np.random.default_rng(0)
    rows, names = 40, tuple(USUAL)
    data = np.tile(list(USUAL.values()), (rows, 1)) * rng.uniform(0, 2, size=(rows, 12))
    values = rng.normal(size=(rows, 12)).round(1)
    values[5] = 0
    told = Explanation(values, 0.0, "log-odds", data, names, values.sum(axis=1), values.sum(axis=1))
    table = reason_table(told, top=3)
    assert list(table) == [f"{kind}_{rank}" for rank in (1, 2, 3) for kind in ("reason", "effect")]
    for row in range(rows):
        expected = [(reason.words, reason.effect) for reason in reasons(told, row)]
        found = [(table[f"reason_{rank}"][row], table[f"effect_{rank}"][row]) for rank in (1, 2, 3)]
        assert found == expected + [("", 0.0)] * (3 - len(expected))


# What would change the decision


class Rule:
    """A model that is certain of fraud where `is_fraud` says so."""

    classes_ = np.array([0, 1])

    def __init__(self, is_fraud):
        self.feature_names_in_ = np.array(list(USUAL), dtype=object)
        self._is_fraud = is_fraud

    def predict_proba(self, X):
        fraud = np.where(self._is_fraud(X), 0.9, 0.1)
        return np.column_stack([1 - fraud, fraud])


def row(**values):
    return pd.DataFrame([USUAL | values])


def test_the_nearest_amount_that_turns_the_decision_is_found():
    model = Rule(lambda X: X["log_amount"] > np.log(500))
    (change,) = what_would_change(model, row(log_amount=np.log(800)))
    assert change.what == "amount"
    assert change.before == "amount €800.00"
    assert 470 < float(change.after.removeprefix("amount €")) <= 500
    assert change.probability == pytest.approx(0.1)
    assert str(change).endswith("instead of amount €800.00: 10.0 %")


def test_an_amount_moves_its_ratio_to_the_habit_along():
    model = Rule(lambda X: X["log_amount_to_habit"] > np.log(3))
    (change,) = what_would_change(
        model, row(log_amount=np.log(400), log_amount_to_habit=np.log(10))
    )
    assert 110 < float(change.after.removeprefix("amount €")) <= 120


def test_a_decision_for_legitimate_is_turned_as_well():
    model = Rule(lambda X: X["log_distance_km"] > np.log1p(100))
    (change,) = what_would_change(model, row())
    assert change.what == "distance"
    assert change.after.startswith("1"), change
    assert change.probability == pytest.approx(0.9)


def test_the_nearest_hour_is_found_across_midnight():
    model = Rule(lambda X: X["hour_cos"] > np.cos(2 * np.pi * 3 / 24))  # between 21:00 and 03:00
    angle = 2 * np.pi * 20 / 24
    (change,) = what_would_change(model, row(hour_sin=np.sin(angle), hour_cos=np.cos(angle)))
    assert (change.before, change.after) == ("at 20:00", "at 21:15")


def test_a_known_device_may_be_enough():
    model = Rule(lambda X: X["is_new_device"] == 1)
    (change,) = what_would_change(model, row(is_new_device=1.0))
    assert (change.before, change.after) == ("first time from this device", "from a known device")


def test_each_thing_that_suffices_is_told():
    model = Rule(lambda X: (X["log_amount"] > np.log(100)) & (X["is_new_device"] == 1))
    changes = what_would_change(model, row(log_amount=np.log(200), is_new_device=1.0))
    assert [change.what for change in changes] == ["amount", "device"]


def test_where_nothing_suffices_the_answer_is_empty():
    model = Rule(lambda X: X["customer_count_7d"] > -1)
    assert what_would_change(model, row()) == ()


def test_features_that_are_not_there_are_not_changed():
    class Unnamed(Rule):
        def __init__(self):
            self.classes_ = np.array([0, 1])

        def predict_proba(self, X):
            return np.column_stack([np.ones(len(X)), np.zeros(len(X))])

    assert what_would_change(Unnamed(), pd.DataFrame({"velocity": [3.0]})) == ()


def test_the_threshold_is_the_one_of_the_decision():
    model = Rule(lambda X: X["is_new_device"] == 1)
    assert what_would_change(model, row(is_new_device=1.0), threshold=0.95) == ()
    with pytest.raises(ValueError, match="between 0 and 1"):
        what_would_change(model, row(), threshold=1.0)


def test_one_row_is_needed():
    with pytest.raises(InputError, match="one row is needed, got 2"):
        what_would_change(Rule(lambda X: X["log_amount"] > 0), pd.concat([row(), row()]))
