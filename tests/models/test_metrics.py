"""Each metric against its definition, and every kind of number that is no probability."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from companion.models.labels import LabelError
from companion.models.metrics import (
    ProbabilityError,
    RowsMismatchError,
    WeightError,
    average_precision,
    brier,
    log_loss,
    roc_auc,
    score,
)

METRICS = [average_precision, roc_auc, brier, log_loss]


@st.composite
def samples(draw, weighted=False):
    """Labels with both classes and probabilities with many ties."""
    rows = draw(st.integers(2, 40))
    labels = draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows))
    labels[:2] = [0, 1]
    levels = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])
    p = draw(st.lists(levels | st.floats(0, 1), min_size=rows, max_size=rows))
    if not weighted:
        return np.array(labels), np.array(p)
    weight = draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows))
    weight[:2] = [1, 1]
    return np.array(labels), np.array(p), np.array(weight)


@given(samples())
def test_roc_auc_is_the_share_of_pairs_in_the_right_order(sample):
    y, p = sample
    pairs = [(fraud > other) + (fraud == other) / 2 for fraud in p[y == 1] for other in p[y == 0]]
    assert roc_auc(y, p) == pytest.approx(np.mean(pairs))


@given(samples())
def test_average_precision_is_the_mean_precision_at_the_frauds(sample):
    y, p = sample
    precisions = [y[p >= threshold].mean() for threshold in p[y == 1]]
    assert average_precision(y, p) == pytest.approx(np.mean(precisions))


@given(samples())
def test_brier_and_log_loss_are_means_over_rows(sample):
    y, p = sample
    assert brier(y, p) == pytest.approx(np.mean((p - y) ** 2))
    assert log_loss(y, p) == pytest.approx(reference.log_loss(y, p, labels=[0, 1]))


@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None)
@given(sample=samples(weighted=True))
def test_a_weight_says_how_often_a_row_is_there(metric, sample):
    y, p, weight = sample
    repeated = metric(np.repeat(y, weight), np.repeat(p, weight))
    assert metric(y, p, weight) == pytest.approx(repeated)


def test_on_many_rows_they_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    y = rng.random(5000) < 0.03
    p = np.round(np.clip(rng.beta(1, 20, 5000) + 0.1 * y, 0, 1), 3)
    scores = score(y, p)
    assert scores.average_precision == pytest.approx(reference.average_precision_score(y, p))
    assert scores.roc_auc == pytest.approx(reference.roc_auc_score(y, p))
    assert scores.brier == pytest.approx(reference.brier_score_loss(y, p))
    assert scores.log_loss == pytest.approx(reference.log_loss(y, p))
    assert scores.base_rate == pytest.approx(y.mean())
    assert (scores.rows, scores.frauds) == (5000, y.sum())
    assert scores.lift == pytest.approx(scores.average_precision / y.mean())


def test_a_constant_forecast_reaches_the_base_rate_and_no_more():
    y = np.array([1, 0, 0, 0])
    scores = score(y, np.full(4, 0.25))
    assert scores.average_precision == scores.base_rate == 0.25
    assert scores.roc_auc == 0.5
    assert scores.brier == pytest.approx(0.25 * 0.75)


def test_the_base_rate_follows_the_weights():
    scores = score([1, 0], [0.9, 0.1], weight=[1, 3])
    assert scores.base_rate == 0.25


def test_average_precision_is_shown_with_its_base_rate():
    assert "average precision 1.000 (base rate 0.500)" in str(score([1, 0], [0.9, 0.1]))


def test_certainty_that_is_wrong_costs_much_but_not_infinitely():
    assert 30 < log_loss([1, 0], [0.0, 0.0]) * 2 < 40


# What is refused


@pytest.mark.parametrize("metric", [*METRICS, score])
@pytest.mark.parametrize(
    ("values", "position", "says"),
    [
        ([0.2, np.nan, 0.1], 1, "1 of 3 are missing"),
        ([0.2, 0.3, -1.7], 2, "logits"),
        ([0.2, 0.3, 3.1], 2, "softmax"),
        ([np.inf, 0.3, 0.1], 0, "inf"),
    ],
)
def test_what_is_no_probability_is_refused_with_its_row(metric, values, position, says):
    with pytest.raises(ProbabilityError, match=says) as caught:
        metric([0, 1, 0], values)
    assert caught.value.position == position


def test_the_value_that_is_no_probability_is_kept():
    with pytest.raises(ProbabilityError) as caught:
        score([0, 1], [0.5, -1.5])
    assert caught.value.found == -1.5


def test_both_columns_of_predict_proba_are_refused_with_the_right_one():
    with pytest.raises(ProbabilityError, match=r"\[:, 1\]"):
        score([0, 1], [[0.4, 0.6], [0.1, 0.9]])


def test_another_shape_is_refused():
    with pytest.raises(ProbabilityError, match="shape"):
        score([0, 1], [[0.4], [0.1]])


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], [-1, 1], [0, 2], [0, None]])
def test_labels_that_are_not_zero_and_one_are_refused(labels):
    with pytest.raises(LabelError):
        score(labels, [0.5, 0.5])


def test_labels_and_probabilities_of_other_rows_are_refused():
    with pytest.raises(RowsMismatchError, match="3 labels and 2 probabilities") as caught:
        score([0, 1, 0], [0.5, 0.5])
    assert (caught.value.labels, caught.value.found) == (3, 2)


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        ([1, -1, 1], "from 0 up"),
        ([1, np.nan, 1], "finite"),
        ([1, 0, 1], "one class"),
        ([0, 1, 0], "one class"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weight, says):
    with pytest.raises(WeightError, match=says):
        score([0, 1, 0], [0.1, 0.5, 0.2], weight)


@pytest.mark.parametrize("weight", [[1, 1], 1.0])
def test_weights_of_other_rows_are_refused(weight):
    with pytest.raises(RowsMismatchError, match="weights"):
        score([0, 1, 0], [0.1, 0.5, 0.2], weight)
