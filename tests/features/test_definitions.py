"""A feature that makes no sense cannot be defined."""

import pandas as pd
import pytest

from companion.features.definitions import (
    DAY_US,
    DefinitionError,
    WindowFeature,
    window_features,
)
from companion.features.offline import window_values
from companion.features.online import OnlineWindows

COUNT = {"name": "n", "entity": ("customer_id",), "days": 1, "aggregate": "count"}
RISK = {**COUNT, "aggregate": "risk", "label_delay_days": 7}

WRONG = {
    "an entity that is text": ("entity", {**COUNT, "entity": "customer_id"}),
    "no entity": ("entity", {**COUNT, "entity": ()}),
    "an unknown aggregate": ("aggregate", {**COUNT, "aggregate": "median"}),
    "an empty window": ("days", {**COUNT, "days": 0}),
    "a window that is no number": ("days", {**COUNT, "days": float("nan")}),
    "a sum of nothing": ("column", {**COUNT, "aggregate": "sum"}),
    "a count of a column": ("column", {**COUNT, "column": "amount"}),
    "no units": ("per_unit", {**COUNT, "aggregate": "sum", "column": "amount", "per_unit": 0}),
    "a risk whose labels are known at once": ("label_delay_days", {**RISK, "label_delay_days": 0}),
    "a count that waits for labels": ("label_delay_days", {**COUNT, "label_delay_days": 7}),
    "a risk that counts itself": ("counts_current", {**RISK, "counts_current": True}),
    "a gap to itself": (
        "counts_current",
        {**COUNT, "aggregate": "minutes_since", "counts_current": True},
    ),
}


@pytest.mark.parametrize(("field", "arguments"), WRONG.values(), ids=WRONG.keys())
def test_what_makes_no_sense_is_refused_by_field(field, arguments):
    with pytest.raises(DefinitionError, match="feature 'n'") as caught:
        WindowFeature(**arguments)
    assert (caught.value.name, caught.value.field) == ("n", field)


def test_a_feature_names_the_columns_that_it_is_made_of():
    pair = WindowFeature("p", ("customer_id", "device_id"), 1, "sum", "amount")
    assert pair.columns == ("time", "customer_id", "device_id", "amount")
    assert not pair.needs_labels
    assert WindowFeature(**RISK).needs_labels


def test_two_features_of_one_name_are_refused_both_ways():
    twice = [WindowFeature(**COUNT), WindowFeature(**{**COUNT, "days": 7})]
    for take in (OnlineWindows, lambda features: window_values(pd.DataFrame(), features)):
        with pytest.raises(DefinitionError) as caught:
            take(twice)
        assert (caught.value.name, caught.value.field) == ("n", "name")


def test_lengths_are_whole_microseconds():
    assert WindowFeature(**RISK).delay_us == 7 * DAY_US
    assert WindowFeature(**{**COUNT, "days": 1 / 3}).window_us == 28_800_000_000


def test_the_usual_windows_are_four_aggregates_of_three_lengths_for_both_entities():
    features = window_features()
    assert len({feature.name for feature in features}) == 4 * 3 * 2
    assert {feature.name: feature.days for feature in features}["merchant_risk_30d"] == 30
    assert {f.counts_current for f in features if f.aggregate in ("mean", "risk")} == {False}
