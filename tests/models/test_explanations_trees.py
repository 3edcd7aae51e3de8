"""Contributions of trees against definitions: brute force over coalitions, and another library."""

import json
import os
import subprocess
import sys
from itertools import combinations
from math import factorial

import numpy as np
import pytest
import shap
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

from companion.models.explanations import UnsupportedModelError
from companion.models.explanations.leaves import leaves_of
from companion.models.explanations.tree_values import background_values, path_values, scores

FEATURES = 6


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


def make_data(rows=600, seed=0, features=FEATURES):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, features)).round(2)
    X[:, 1] = X[:, 1] > 0
    odds = 2 * X[:, 0] * X[:, 1] + X[:, 2] - X[:, 3] ** 2
    return X, (odds + rng.normal(size=rows) > 0).astype(int)


X, Y = make_data()
MODELS = {
    "decision tree": DecisionTreeClassifier(random_state=0),
    "forest": RandomForestClassifier(12, random_state=0),
    "extra trees": ExtraTreesClassifier(12, max_depth=6, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=20, random_state=0),
    "histogram boosting": HistGradientBoostingClassifier(max_iter=30, random_state=0),
}


@pytest.fixture(scope="module", params=MODELS)
def fitted(request):
    """The model, its leaves, and its score in their unit as a function of rows."""
    model = MODELS[request.param].fit(X, Y)
    boosted = hasattr(model, "decision_function")
    score = model.decision_function if boosted else lambda rows: model.predict_proba(rows)[:, 1]
    return model, leaves_of(model, 1), score


def shapley(worth):
    """The definition: worth of a set of features → the share of each."""
    shares = np.zeros(FEATURES)
    for player in range(FEATURES):
        others = [other for other in range(FEATURES) if other != player]
        for size in range(FEATURES):
            weight = factorial(size) * factorial(FEATURES - size - 1) / factorial(FEATURES)
            for members in combinations(others, size):
                shares[player] += weight * (worth({*members, player}) - worth(set(members)))
    return shares


def test_the_leaves_reached_give_the_score_of_the_model(fitted):
    _, leaves, score = fitted
    assert np.allclose(scores(leaves, X), score(X), atol=1e-12)


def test_with_a_background_they_are_shapley_values_of_its_mean_score(fitted):
    _, leaves, score = fitted
    background = X[50:60]
    values, base = background_values(leaves, X[:2], background)

    for row in range(2):

        def worth(members, row=row):
            mixed = background.copy()
            for feature in members:
                mixed[:, feature] = X[row, feature]
            return score(mixed).mean()

        assert np.allclose(values[row], shapley(worth), atol=1e-12)
    assert base == pytest.approx(score(background).mean())


def test_without_a_background_they_equal_those_of_the_shap_library(fitted):
    model, leaves, _ = fitted
    values, base = path_values(leaves, X[:40])
    explainer = shap.TreeExplainer(model)
    theirs = explainer.shap_values(X[:40])
    assert np.allclose(values, theirs[..., 1] if theirs.ndim == 3 else theirs, atol=1e-9)
    assert base == pytest.approx(float(np.ravel(explainer.expected_value)[-1]))


def test_more_rows_than_a_block_are_explained_as_alone(fitted):
    _, leaves, _ = fitted
    many = np.tile(X, (9, 1))  # 5,400
    together, _ = path_values(leaves, many)
    alone, _ = path_values(leaves, many[-1:])
    assert np.allclose(together[-1:], alone, atol=1e-14)


def test_ways_over_many_features_are_worked_out_row_by_row():
    wide, labels = make_data(1500, features=20)
    labels = (wide.sum(axis=1) > 0).astype(int)
    model = ExtraTreesClassifier(3, max_features=1, random_state=0).fit(wide, labels)
    leaves = leaves_of(model, 1)
    assert np.diff(leaves.boxes.start).max() > 12, "the test needs a long way"
    values, base = path_values(leaves, wide[:30])
    theirs = shap.TreeExplainer(model).shap_values(wide[:30])[..., 1]
    assert np.allclose(values, theirs, atol=1e-9)
    compared, base = background_values(leaves, wide[:30], wide[100:110])
    assert np.allclose(base + compared.sum(axis=1), model.predict_proba(wide[:30])[:, 1])


def test_missing_values_go_where_the_model_sends_them():
    holes = X.copy()
    holes[::3, 0] = np.nan
    holes[::5, 2] = np.nan
    model = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(holes, Y)
    leaves = leaves_of(model, 1)
    values, base = path_values(leaves, holes)
    assert np.allclose(base + values.sum(axis=1), model.decision_function(holes), atol=1e-9)


def test_a_row_on_a_threshold_falls_to_the_side_of_the_model():
    model = DecisionTreeClassifier(max_depth=4, random_state=0).fit(X.astype("float32"), Y)
    leaves = leaves_of(model, 1)
    edges = X[:40].copy()
    used = model.tree_.feature >= 0
    for feature, threshold in zip(
        model.tree_.feature[used], model.tree_.threshold[used], strict=True
    ):
        edges[:, feature] = threshold
        assert np.allclose(scores(leaves, edges), model.predict_proba(edges)[:, 1])


def test_the_first_class_of_a_forest_is_explained_as_well_as_the_second():
    model = MODELS["forest"].fit(X, Y)
    first, _ = path_values(leaves_of(model, 0), X[:5])
    second, _ = path_values(leaves_of(model, 1), X[:5])
    assert np.allclose(first, -second, atol=1e-12)


def test_boosting_that_starts_from_nothing_starts_from_even_odds():
    model = GradientBoostingClassifier(n_estimators=5, init="zero", random_state=0).fit(X, Y)
    assert np.allclose(scores(leaves_of(model, 1), X), model.decision_function(X), atol=1e-12)


@pytest.mark.parametrize(
    ("model", "labels", "reason"),
    [
        (HistGradientBoostingClassifier(max_iter=2), np.arange(600) % 3, "two classes"),
        (GradientBoostingClassifier(n_estimators=2), np.arange(600) % 3, "two classes"),
        (HistGradientBoostingClassifier(max_iter=2, categorical_features=[1]), Y, "by category"),
        (
            GradientBoostingClassifier(n_estimators=2, init=DecisionTreeClassifier(max_depth=1)),
            Y,
            "another model",
        ),
    ],
    ids=["histogram, three classes", "three classes", "categories", "another start"],
)
def test_what_cannot_be_explained_is_refused_by_name(model, labels, reason):
    with pytest.raises(UnsupportedModelError, match=reason):
        leaves_of(model.fit(X, labels), 1)


def test_ways_with_more_features_than_bits_are_refused():
    wide = np.eye(140)
    model = DecisionTreeClassifier().fit(wide, np.arange(140) % 2)
    with pytest.raises(UnsupportedModelError, match="more than 62 features"):
        leaves_of(model, 1)


def test_compiled_and_interpreted_loops_agree():
    """Also what measures the lines that run compiled, where no tracer sees them."""
    program = """
import json, sys
import numpy as np
from sklearn.tree import DecisionTreeClassifier
from companion.models.explanations.leaves import leaves_of
from companion.models.explanations.tree_values import background_values, path_values
rng = np.random.default_rng(0)
X = rng.normal(size=(120, 20)).round(1)
y = (X.sum(axis=1) > 0).astype(int)
deep = DecisionTreeClassifier(splitter="random", max_features=1, random_state=0).fit(X, y)
leaves = leaves_of(deep, 1)
values = [path_values(leaves, X[:4])[0], background_values(leaves, X[:4], X[9:12])[0]]
"""
    scope = {}
    exec(program, scope)
    interpreted = subprocess.run(
        [sys.executable, "-c", program + "print(json.dumps([v.tolist() for v in values]))"],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert np.allclose(scope["values"], json.loads(interpreted), atol=1e-13)
