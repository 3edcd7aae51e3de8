"""Every threshold priced in one sort, against pricing each one by itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.models.costs import (
    CostError,
    Costs,
    best_threshold,
    cost_at,
    cost_curve,
    theory_threshold,
    theory_thresholds,
)
from companion.models.labels import LabelError
from companion.models.metrics import ProbabilityError, RowsMismatchError, WeightError

COSTS = Costs(missed=100, false_alarm=5)


def price(y, p, threshold, costs, amounts=None, weight=None):
    """The cost of one threshold, row by row."""
    total = 0.0
    for row in range(len(y)):
        times = 1 if weight is None else weight[row]
        alerted = p[row] >= threshold
        if y[row] and not alerted:
            at_risk = 0 if amounts is None else amounts[row]
            total += times * (costs.missed + costs.missed_share * at_risk)
        if alerted and not y[row]:
            total += times * costs.false_alarm
    return total


@st.composite
def samples(draw):
    rows = draw(st.integers(2, 25))

    def column(values):
        return np.array(draw(st.lists(values, min_size=rows, max_size=rows)))

    y = column(st.integers(0, 1))
    y[:2] = [0, 1]
    p = column(st.sampled_from([0.0, 0.2, 0.5, 1.0]) | st.floats(0, 1))
    weight = column(st.integers(0, 3))
    weight[:2] = 1
    return y, p, column(st.integers(0, 500)), weight


@given(samples(), st.sampled_from([COSTS, Costs(0, 3, 0.5), Costs(20, 3, 1.0)]))
def test_the_curve_is_what_each_threshold_costs_by_itself(sample, costs):
    y, p, amounts, weight = sample
    curve = cost_curve(y, p, costs, amounts=amounts, weight=weight)
    for threshold, cost in zip(curve.thresholds, curve.cost, strict=True):
        expected = price(y, p, threshold, costs, amounts, weight)
        assert cost == pytest.approx(expected, abs=1e-6)


@given(samples(), st.floats(-0.1, 1.1))
def test_any_threshold_can_be_asked_for(sample, threshold):
    y, p, _, _ = sample
    found = cost_at(y, p, threshold, COSTS)
    assert found.cost == pytest.approx(price(y, p, threshold, COSTS))
    assert found.alerts == (p >= threshold).sum()
    assert found.missed == (y * (p < threshold)).sum()
    assert found.false_alarms == ((1 - y) * (p >= threshold)).sum()
    assert found.threshold == threshold


@given(samples())
def test_no_threshold_is_cheaper_than_the_best(sample):
    y, p, amounts, _ = sample
    costs = Costs(20, 3, 1.0)
    best = best_threshold(y, p, costs, amounts=amounts)
    everything = [np.inf, *p]
    cheapest = min(price(y, p, threshold, costs, amounts) for threshold in everything)
    assert best.cost == pytest.approx(cheapest, abs=1e-6)


def test_of_equally_cheap_thresholds_the_highest_is_taken():
    # Each further alert catches nothing and costs nothing more than it saves.
    y, p = [1, 1, 0], [0.9, 0.5, 0.1]
    costs = Costs(missed=5, false_alarm=5)
    assert best_threshold(y, p, costs).threshold == 0.5
    assert best_threshold([0, 1], [0.9, 0.5], costs).threshold == np.inf


def test_without_any_use_in_alerts_none_is_best():
    best = best_threshold([0, 0, 0, 1], [0.9, 0.8, 0.7, 0.1], Costs(missed=1, false_alarm=5))
    assert best.threshold == np.inf
    assert (best.alerts, best.missed, best.cost) == (0, 1, 1)


def test_calibrated_probabilities_are_cheapest_near_the_theory():
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 6, 200_000)
    y = rng.random(200_000) < p
    theory = theory_threshold(COSTS)
    assert theory == pytest.approx(5 / 105)
    curve = cost_curve(y, p, COSTS)
    assert curve.best.threshold == pytest.approx(theory, abs=0.015)
    assert curve.at(theory).cost < 1.005 * curve.best.cost


def test_a_large_amount_deserves_an_alert_at_a_smaller_probability():
    costs = Costs(missed=10, false_alarm=5, missed_share=1.0)
    thresholds = theory_thresholds(costs, [0, 85])
    assert thresholds.tolist() == [5 / 15, 5 / 100]
    rng = np.random.default_rng(0)
    p, amounts = rng.beta(0.3, 6, 50_000), rng.lognormal(3, 1.5, 50_000)
    y = (rng.random(50_000) < p).astype(int)
    # Alerting where p exceeds its row's threshold is alerting on p / threshold >= 1.
    alerted = p >= theory_thresholds(costs, amounts)
    by_amount = (y * ~alerted * (10 + amounts)).sum() + 5 * ((1 - y) * alerted).sum()
    assert by_amount < 0.95 * best_threshold(y, p, costs, amounts=amounts).cost


# What is refused


@pytest.mark.parametrize(
    "settings",
    [(-1, 5), (100, -5), (np.nan, 5), (np.inf, 5), (0, 5), (100, 0), (100, 5, -0.1)],
)
def test_costs_that_weigh_nothing_are_refused(settings):
    with pytest.raises(CostError):
        Costs(*settings)


@pytest.mark.parametrize(
    ("amounts", "error"),
    [
        (None, CostError),
        ([1.0, -1.0], CostError),
        ([1.0, np.nan], CostError),
        ([1.0], RowsMismatchError),
    ],
)
def test_amounts_are_needed_and_checked_where_a_share_of_them_is_lost(amounts, error):
    with pytest.raises(error, match="amounts"):
        cost_curve([0, 1], [0.1, 0.9], Costs(0, 5, 1.0), amounts=amounts)


def test_one_threshold_for_all_amounts_has_no_theory():
    with pytest.raises(CostError, match="theory_thresholds"):
        theory_threshold(Costs(0, 5, 1.0))


def test_a_threshold_that_is_no_number_is_refused():
    with pytest.raises(CostError, match="NaN"):
        cost_at([0, 1], [0.1, 0.9], np.nan, COSTS)


def test_labels_probabilities_and_weights_are_checked():
    with pytest.raises(LabelError):
        cost_curve([0, 0], [0.1, 0.9], COSTS)
    with pytest.raises(ProbabilityError):
        cost_curve([0, 1], [-0.1, 0.9], COSTS)
    with pytest.raises(WeightError):
        cost_curve([0, 1], [0.1, 0.9], COSTS, weight=[0, 1])
