"""Intervals against brute force, and whether they cover the truth as often as they say."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.models.intervals import (
    IntervalError,
    bootstrap,
    delong_interval,
    delong_test,
    paired_bootstrap,
)
from companion.models.labels import LabelError
from companion.models.metrics import (
    ProbabilityError,
    RowsMismatchError,
    average_precision,
    brier,
    roc_auc,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def two_models(rows=600, rate=0.2, seed=0, better=1.0, worse=1.0):
    """Labels and two correlated models whose signals have the given strengths."""
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) < rate).astype(int)
    shared = rng.normal(size=rows)
    noise = rng.normal(size=(2, rows))
    first = sigmoid(better * y + shared + 0.5 * noise[0] - 2)
    second = sigmoid(worse * y + shared + 0.5 * noise[1] - 2)
    return y, first, second


def brute_force_delong(y, models):
    """DeLong's definition: a mean over all pairs, and the placements of every row."""
    aucs, of_frauds, of_others = [], [], []
    for p in models:
        frauds, others = p[y == 1], p[y == 0]
        wins = (frauds[:, None] > others) + (frauds[:, None] == others) / 2
        aucs.append(wins.mean())
        of_frauds.append(wins.mean(axis=1))
        of_others.append(wins.mean(axis=0))
    m, n = wins.shape
    return np.array(aucs), np.cov(of_frauds) / m + np.cov(of_others) / n


# DeLong


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(6, 60),
    digits=st.sampled_from([1, 2, 10]),  # one digit makes many ties
)
def test_delong_is_the_definition_by_pairs(seed, rows, digits):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    y[:4] = [0, 0, 1, 1]
    models = np.round(rng.random((2, rows)), digits)
    aucs, covariance = brute_force_delong(y, models)
    found = delong_test(y, *models)
    assert [found.first, found.second] == pytest.approx(aucs)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert found.standard_error == pytest.approx(np.sqrt(max(variance, 0)), abs=1e-9)
    single = delong_interval(y, models[0], level=0.6827)
    if 0 < single.low < single.high < 1:
        assert single.high - single.low == pytest.approx(2 * np.sqrt(covariance[0, 0]), rel=1e-3)


def test_delong_gives_the_auc_of_the_metrics():
    y, first, second = two_models()
    found = delong_test(y, first, second)
    assert found.first == pytest.approx(roc_auc(y, first))
    assert found.estimate == pytest.approx(roc_auc(y, first) - roc_auc(y, second))


def test_delong_calls_models_of_equal_strength_different_once_in_twenty():
    p_values = [delong_test(*two_models(400, seed=seed)).p_value for seed in range(600)]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.027)  # 3 sigma
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.05)


def test_delong_covers_the_true_auc_as_often_as_it_says():
    shift = 1.2
    truth = 0.5 * (1 + math.erf(shift / 2))  # normal scores of equal spread
    covered = []
    for seed in range(500):
        rng = np.random.default_rng(seed)
        y = np.repeat([1, 0], [60, 240])
        found = delong_interval(y, sigmoid(rng.normal(size=300) + shift * y))
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.035)


def test_delong_finds_a_real_difference():
    found = delong_test(*two_models(2000, better=1.5, worse=0.8))
    assert found.p_value < 1e-4
    assert found.is_clear
    assert found.low > 0


def test_pairs_make_the_difference_more_certain_than_the_models():
    y, first, second = two_models(1000)
    apart = [delong_interval(y, p) for p in (first, second)]
    width = np.sqrt(sum((each.high - each.low) ** 2 for each in apart))
    together = delong_test(y, first, second)
    assert together.high - together.low < 0.6 * width


def test_a_model_does_not_differ_from_itself():
    y, first, _ = two_models()
    found = delong_test(y, first, first)
    assert (found.estimate, found.standard_error, found.p_value) == (0.0, 0.0, 1.0)
    assert not found.is_clear


def test_a_perfect_model_differs_from_a_perfectly_wrong_one():
    y = np.array([0, 0, 1, 1])
    found = delong_test(y, [0.1, 0.2, 0.8, 0.9], [0.9, 0.8, 0.2, 0.1])
    assert (found.estimate, found.p_value) == (1.0, 0.0)


def test_an_interval_of_an_auc_stays_between_zero_and_one():
    y, p, _ = two_models(30, better=4, seed=3)
    assert delong_interval(y, p).high <= 1.0


# Bootstrap


def test_the_bootstrap_agrees_with_delong_on_many_rows():
    y, first, second = two_models(3000, better=1.1)
    exact = delong_test(y, first, second)
    drawn = paired_bootstrap(y, first, second, metric=roc_auc, seed=1)
    assert drawn.estimate == pytest.approx(exact.estimate)
    assert drawn.low == pytest.approx(exact.low, abs=0.15 * exact.standard_error * 2)
    assert drawn.high == pytest.approx(exact.high, abs=0.15 * exact.standard_error * 2)


@pytest.mark.parametrize("stratified", [False, True])
def test_the_bootstrap_covers_the_true_difference_as_often_as_it_says(stratified):
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(200):
        y = (rng.random(300) < 0.3).astype(int)
        first, second = np.clip(0.3 + rng.normal(0, 0.1, (2, 300)), 0, 1)
        # Equal in distribution, so the true difference of the Brier scores is zero.
        found = paired_bootstrap(
            y, first, second, metric=brier, seed=seed, resamples=200, stratified=stratified
        )
        covered.append(found.low <= 0 <= found.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.055)


def test_drawing_rows_is_drawing_weights():
    y, p, _ = two_models(200)
    draws = []

    def spy(labels, probabilities, weight):
        draws.append(weight)
        return average_precision(labels, probabilities, weight)

    bootstrap(y, p, metric=spy, seed=0, resamples=50)
    *weights, once = draws
    assert all(weight.sum() == 200 for weight in weights)
    assert (once == 1).all()
    assert np.mean([np.mean(weight == 0) for weight in weights]) == pytest.approx(
        1 / np.e, abs=0.02
    )


def test_a_stratified_draw_keeps_the_number_of_frauds():
    y, p, _ = two_models(200)
    frauds = []
    bootstrap(y, p, metric=lambda y, p, w: frauds.append(w @ y) or 0.0, seed=0, stratified=True)
    assert set(frauds) == {y.sum()}


def test_whole_clusters_are_drawn():
    y, p, _ = two_models(200)
    customers = np.array([f"c{row // 5}" for row in range(200)])
    together = []

    def spy(labels, probabilities, weight):
        together.append(all(len(set(weight[customers == name])) == 1 for name in set(customers)))
        return 0.0

    bootstrap(y, p, metric=spy, seed=0, resamples=20, clusters=customers)
    assert all(together)


def test_copies_of_rows_narrow_an_interval_unless_clusters_say_so():
    y, p, _ = two_models(150)
    honest = bootstrap(y, p, metric=roc_auc, seed=0)
    copied_y, copied_p, who = np.repeat(y, 4), np.repeat(p, 4), np.repeat(np.arange(150), 4)
    fooled = bootstrap(copied_y, copied_p, metric=roc_auc, seed=0)
    by_customer = bootstrap(copied_y, copied_p, metric=roc_auc, seed=0, clusters=who)
    assert fooled.high - fooled.low < 0.6 * (honest.high - honest.low)
    assert by_customer.high - by_customer.low == pytest.approx(honest.high - honest.low)


def test_a_draw_without_fraud_is_drawn_again():
    y = np.array([1] + [0] * 30)
    found = bootstrap(y, np.linspace(1, 0, 31), metric=roc_auc, seed=0)
    assert found.low == found.high == 1.0


def test_the_same_seed_gives_the_same_interval():
    y, first, second = two_models(100)
    one, again, other = (
        paired_bootstrap(y, first, second, metric=brier, seed=seed, resamples=50)
        for seed in (1, 1, 2)
    )
    assert one == again != other


def test_a_metric_sees_other_columns_through_a_closure():
    y, first, second = two_models(300)
    amounts = np.arange(300.0)

    def money_lost(labels, p, weight):
        return float(weight @ (labels * (p < 0.3) * amounts))

    found = paired_bootstrap(y, first, second, metric=money_lost, seed=0, resamples=50)
    assert found.first == (y * (first < 0.3) * amounts).sum()


def test_an_interval_reads_as_text():
    assert str(bootstrap([1, 0] * 20, [0.9, 0.1] * 20, metric=roc_auc, seed=0)) == (
        "1.000 [1.000, 1.000]"
    )


# What is refused


@pytest.mark.parametrize("settings", [{"resamples": 5}, {"level": 1.0}, {"level": 0.0}])
def test_settings_out_of_range_are_refused(settings):
    y, first, second = two_models(50)
    with pytest.raises(IntervalError):
        paired_bootstrap(y, first, second, metric=brier, seed=0, **settings)


@pytest.mark.parametrize(
    ("clusters", "error"),
    [
        ([1] * 50, IntervalError),
        ([1, None] * 25, IntervalError),
        ([1, 2], RowsMismatchError),
    ],
    ids=["one cluster", "missing", "other rows"],
)
def test_clusters_that_cannot_be_drawn_are_refused(clusters, error):
    y, first, _ = two_models(50)
    with pytest.raises(error, match="cluster"):
        bootstrap(y, first, metric=brier, seed=0, clusters=clusters)


def test_clusters_and_strata_at_once_are_refused():
    y, first, _ = two_models(50)
    with pytest.raises(IntervalError, match="not both"):
        bootstrap(y, first, metric=brier, seed=0, clusters=range(50), stratified=True)


def test_one_fraud_has_no_variance():
    with pytest.raises(IntervalError, match="1 frauds"):
        delong_interval([1, 0, 0], [0.9, 0.1, 0.2])


def test_delong_takes_a_level_between_zero_and_one():
    y, first, second = two_models(50)
    for level in (0.0, 1.0):
        with pytest.raises(IntervalError, match="level"):
            delong_test(y, first, second, level=level)
        with pytest.raises(IntervalError, match="level"):
            delong_interval(y, first, level=level)


def test_labels_probabilities_and_rows_are_checked():
    y, first, second = two_models(50)
    with pytest.raises(LabelError):
        delong_test(np.zeros(50), first, second)
    with pytest.raises(ProbabilityError):
        delong_test(y, first, second * 9)
    with pytest.raises(RowsMismatchError):
        paired_bootstrap(y, first, second[:-1], metric=brier, seed=0)
