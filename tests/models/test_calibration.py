"""What "3 %" means, measured in bins of equal mass, and repaired in two ways."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from companion.models.calibration import (
    CalibrationError,
    calibrate,
    calibration_curve,
    expected_calibration_error,
    odds,
    shift_base_rate,
    undo_weight,
)
from companion.models.labels import LabelError
from companion.models.metrics import ProbabilityError, brier, roc_auc


def honest(rows=20_000, seed=0):
    """Labels that happen exactly as often as their probabilities say."""
    rng = np.random.default_rng(seed)
    p = rng.beta(0.5, 10, rows)
    return (rng.random(rows) < p).astype(int), p


# The curve


def test_bins_hold_equally_many_rows():
    curve = calibration_curve(*honest(1000), bins=8)
    assert curve.count.tolist() == [125] * 8
    assert (np.diff(curve.predicted) > 0).all()


def test_a_bin_compares_the_mean_probability_with_the_share_of_frauds():
    curve = calibration_curve([0, 0, 0, 1], [0.1, 0.2, 0.6, 0.8], bins=2)
    assert curve.predicted == pytest.approx([0.15, 0.7])
    assert curve.observed == pytest.approx([0.0, 0.5])
    assert curve.expected_error == pytest.approx((0.15 + 0.2) / 2)


@given(st.data())
def test_no_two_bins_share_a_probability_and_no_row_is_lost(data):
    rows = data.draw(st.integers(2, 60))
    values = st.sampled_from([0.0, 0.01, 0.02, 0.5])
    p = np.array(data.draw(st.lists(values, min_size=rows, max_size=rows)))
    y = np.array(data.draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)))
    y[:2] = [0, 1]
    curve = calibration_curve(y, p, bins=data.draw(st.integers(1, 20)))
    assert curve.count.sum() == rows
    assert (curve.count > 0).all()
    assert curve.count @ curve.observed == pytest.approx(y.sum())
    assert curve.count @ curve.predicted == pytest.approx(p.sum())
    assert len(curve.count) <= len(set(p.tolist()))


def test_an_honest_model_lies_on_the_diagonal():
    curve = calibration_curve(*honest())
    inside = (curve.low <= curve.predicted) & (curve.predicted <= curve.high)
    assert inside.sum() >= 8
    assert curve.expected_error < 0.005


def test_wilsons_interval_is_that_of_the_books():
    curve = calibration_curve([0] * 81 + [1] * 19, np.full(100, 0.2), bins=1)
    assert [curve.low[0], curve.high[0]] == pytest.approx([0.1251, 0.2778], abs=1e-4)


def test_an_interval_stays_possible_where_no_fraud_was_seen():
    curve = calibration_curve([0] * 50 + [1] * 50, np.repeat([0.0, 1.0], 50), bins=2)
    assert curve.low[0] == 0.0
    assert 0 < curve.high[0] < 0.1
    assert curve.high[1] == 1.0


def test_an_overconfident_model_has_an_error():
    y, p = honest()
    assert expected_calibration_error(y, undo_weight(p, 1 / 10)) > 0.1
    assert expected_calibration_error(y, np.full(len(y), y.mean())) == pytest.approx(0, abs=1e-9)


def test_weights_stand_for_rows_that_are_there_more_often():
    y, p = honest(400)
    weight = np.random.default_rng(1).integers(1, 4, 400)
    weighted = calibration_curve(y, p, bins=1, weight=weight)
    repeated = calibration_curve(np.repeat(y, weight), np.repeat(p, weight), bins=1)
    assert weighted.predicted == pytest.approx(repeated.predicted)
    assert weighted.observed == pytest.approx(repeated.observed)
    assert weighted.expected_error == pytest.approx(repeated.expected_error)
    # Copies are no new evidence, and less than one row each where weights differ.
    plain = calibration_curve(y, p, bins=1)
    assert weighted.high - weighted.low > 0.95 * (plain.high - plain.low)


def test_equal_weights_change_nothing_and_rows_without_weight_are_gone():
    y, p = honest(300)
    plain, doubled = (calibration_curve(y, p, weight=w) for w in (None, np.full(300, 2.0)))
    assert np.allclose(plain.low, doubled.low)
    assert np.allclose(plain.mass, doubled.mass)
    gone = np.where((np.arange(300) < 150) | (y == 1), 1.0, 0.0)
    without = calibration_curve(y[gone > 0], p[gone > 0])
    assert np.allclose(calibration_curve(y, p, weight=gone).observed, without.observed)


def test_a_model_moved_to_a_base_rate_is_calibrated_on_rows_weighted_to_it():
    y, p = honest(100_000)
    weight = np.where(y == 1, 0.2, 1.0)
    actual = np.average(y, weights=weight)
    moved = shift_base_rate(p, trained=y.mean(), actual=actual)
    assert calibration_curve(y, p, weight=weight).expected_error > 0.02
    assert calibration_curve(y, moved, weight=weight).expected_error < 0.003


@pytest.mark.parametrize("bins", [0, -1, True])
def test_there_is_one_bin_at_least(bins):
    with pytest.raises(CalibrationError, match="bins"):
        calibration_curve([0, 1], [0.1, 0.2], bins=bins)


# Prior correction


@given(st.floats(0.001, 0.999), st.floats(0.01, 100))
def test_the_weight_divides_the_odds(p, weight):
    (corrected,) = undo_weight([p], weight)
    assert odds(corrected) == pytest.approx(odds(p) / weight)


@given(st.lists(st.floats(0, 1), min_size=1), st.floats(0.01, 100))
def test_the_correction_can_be_taken_back(p, weight):
    there_and_back = undo_weight(undo_weight(p, weight), 1 / weight)
    assert there_and_back == pytest.approx(np.array(p), abs=1e-9)


def test_certainty_stays_and_the_order_stays():
    p = np.array([0.0, 0.2, 0.6, 1.0])
    corrected = undo_weight(p, 30)
    assert corrected[[0, -1]].tolist() == [0.0, 1.0]
    assert (np.diff(corrected) > 0).all()


def test_undersampling_is_undone_exactly_for_an_honest_model():
    y, p = honest(200_000)
    rng = np.random.default_rng(1)
    kept = (y == 1) | (rng.random(len(y)) < 0.1)  # a tenth of the legitimate rows
    inflated = undo_weight(p, 1 / 10)  # what an honest model of the kept rows says
    assert expected_calibration_error(y[kept], inflated[kept]) < 0.01
    assert expected_calibration_error(y, inflated) > 0.1
    assert expected_calibration_error(y, undo_weight(inflated, 10)) < 0.005


def test_a_model_moves_to_another_base_rate_and_back():
    p = np.array([0.03, 0.5])
    moved = shift_base_rate(p, trained=0.03, actual=0.5)
    assert moved[0] == pytest.approx(0.5)
    assert shift_base_rate(moved, trained=0.5, actual=0.03) == pytest.approx(p)


@pytest.mark.parametrize("weight", [0, -1, np.nan, np.inf])
def test_a_weight_is_above_zero(weight):
    with pytest.raises(CalibrationError, match="weight"):
        undo_weight([0.5], weight)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, np.nan])
def test_rates_lie_between_zero_and_one(rate):
    with pytest.raises(CalibrationError, match="rate"):
        shift_base_rate([0.5], trained=rate, actual=0.1)


def test_logits_are_not_corrected():
    with pytest.raises(ProbabilityError, match="logits"):
        undo_weight([-2.3], 10)


# Recalibration


@pytest.fixture(scope="module")
def weighted():
    """A model with balanced weights, and rows that it has not seen: features and labels."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 2))
    y = (rng.random(20_000) < 1 / (1 + np.exp(4 - 1.5 * X[:, 0]))).astype(int)
    model = LogisticRegression(class_weight="balanced").fit(X[:5000], y[:5000])
    return model, X[5000:], y[5000:]


@pytest.mark.parametrize("method", ["isotonic", "sigmoid"])
def test_validation_rows_repair_a_weighted_model(weighted, method):
    model, X, y = weighted
    repaired = calibrate(model, X[:5000], y[:5000], method=method)
    before, after = (each.predict_proba(X[5000:])[:, 1] for each in (model, repaired))
    later = y[5000:]
    assert expected_calibration_error(later, before) > 0.1
    assert expected_calibration_error(later, after) < 0.02
    assert brier(later, after) < 0.5 * brier(later, before)
    assert roc_auc(later, after) == pytest.approx(roc_auc(later, before), abs=0.01)


def test_the_model_itself_is_not_trained_again(weighted):
    model, X, y = weighted
    before = model.coef_.copy()
    calibrate(model, X[:5000], y[:5000])
    assert np.array_equal(model.coef_, before)


def test_another_method_is_refused(weighted):
    model, X, y = weighted
    with pytest.raises(CalibrationError, match="isotonic"):
        calibrate(model, X, y, method="spline")


def test_a_handful_of_frauds_calibrates_nothing(weighted):
    model, X, _ = weighted
    with pytest.raises(CalibrationError, match="3 frauds"):
        calibrate(model, X[:50], [1, 1, 1] + [0] * 47)


def test_labels_are_checked(weighted):
    model, X, _ = weighted
    with pytest.raises(LabelError):
        calibrate(model, X[:50], np.zeros(50))
