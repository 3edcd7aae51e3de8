"""Why contributions are zero: each cause is told apart from the others."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from threadpoolctl import threadpool_limits

from companion.models.explanations import (
    FraudClassError,
    InputError,
    explain,
    why_zero,
)
from companion.models.explanations.coalitions import coalition_values


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


rng = np.random.default_rng(0)
X = rng.normal(size=(400, 4))
Y = (X[:, 0] + X[:, 1] + 0.3 * rng.normal(size=400) > 1).astype(int)
FOREST = RandomForestClassifier(15, max_depth=4, random_state=0).fit(X, Y)


def names(report):
    return [cause.name for cause in report.causes]


def test_a_constant_model_has_nothing_to_explain():
    constant = RandomForestClassifier(5, min_samples_leaf=300, random_state=0).fit(X, Y)
    report = why_zero(constant, X)
    assert report.share_zero == 1.0
    assert names(report) == ["constant model"]


def test_a_model_of_one_class_is_named_before_anything_is_computed():
    report = why_zero(RandomForestClassifier(3).fit(X, np.zeros(400)), X)
    assert names(report) == ["one class only"]
    assert "fraud" in report.causes[0].remedy


def test_a_row_compared_with_itself_is_found():
    report = why_zero(FOREST, X[:1], background=X[:1])
    assert report.share_zero == 1.0
    assert names(report) == ["background equals the row"]


def test_the_mean_over_both_classes_is_found():
    both = np.stack([-explain(FOREST, X[:30]).values, explain(FOREST, X[:30]).values], axis=-1)
    report = why_zero(FOREST, X[:30], both.mean(axis=-1))
    assert names(report) == ["mean over classes"]
    assert "values[..., column]" in report.causes[0].remedy


def test_labels_that_were_explained_instead_of_probabilities_are_found():
    hard, _ = coalition_values(FOREST.predict, X[:20], X[100:120])
    report = why_zero(FOREST, X[:20], hard, background=X[100:120])
    assert "hard labels" in names(report)


def test_labels_that_never_flip_are_told_from_classes_that_cancel():
    calm = X[FOREST.predict_proba(X)[:, 1] < 0.3]
    never = why_zero(FOREST, calm, np.zeros_like(calm))
    assert names(never) == ["hard labels", "mean over classes"]
    cancelled = why_zero(FOREST, calm, np.full_like(calm, 1e-17))
    assert names(cancelled) == ["mean over classes", "hard labels"]


def test_probabilities_are_not_taken_for_labels():
    assert "hard labels" not in names(why_zero(FOREST, X[:50]))


def test_one_row_is_told_from_labels_by_the_spread_of_the_model():
    assert "mean over classes" not in names(why_zero(FOREST, X[:1]))


def test_rounding_on_the_screen_is_told_from_zero():
    report = why_zero(FOREST, X[:100], decimals=1)
    assert "display rounding" in names(report)
    assert report.share_shown_zero > report.share_zero


def test_with_enough_digits_rounding_is_no_cause():
    assert "display rounding" not in names(why_zero(FOREST, X[:100], decimals=9))


def test_features_without_any_effect_are_counted():
    flat = X.copy()
    flat[:, 3] = 0
    blind = RandomForestClassifier(5, max_depth=3, random_state=0).fit(flat, Y)
    report = why_zero(blind, flat[:40], decimals=9)
    (cause,) = (cause for cause in report.causes if cause.name == "features not used")
    assert "1 of 4" in cause.evidence


def test_a_healthy_explanation_has_no_causes():
    report = why_zero(FOREST, X[:20], decimals=12)
    assert report.causes == ()
    assert report.share_zero < 0.1


def test_an_explanation_can_be_handed_in_as_it_is():
    assert why_zero(FOREST, X[:20], explain(FOREST, X[:20]), decimals=12).causes == ()


def test_the_report_reads_as_text():
    text = str(why_zero(FOREST, X[:1], background=X[:1]))
    assert text.startswith("100% of the values are zero")
    assert "- background equals the row: 1 of 1 rows" in text


def test_values_of_another_shape_are_refused_with_the_way_out():
    with pytest.raises(InputError, match=r"take values\[\.\.\., column\]"):
        why_zero(FOREST, X[:5], np.zeros((5, 4, 2)))


def test_a_doubtful_class_is_an_error_here_too():
    doubtful = RandomForestClassifier(3).fit(X, np.where(Y == 1, "a", "b"))
    with pytest.raises(FraudClassError):
        why_zero(doubtful, X[:5])
    assert why_zero(doubtful, X[:5], fraud="a", decimals=12).share_shown_zero < 1
