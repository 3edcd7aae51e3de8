"""`explain`: the fraud class, the stated unit, the original features, and refusals by name."""

import threading
import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    Normalizer,
    OneHotEncoder,
    SplineTransformer,
    StandardScaler,
)
from threadpoolctl import threadpool_limits

from companion.models import make_net
from companion.models.explanations import (
    AdditivityError,
    BackgroundError,
    Explainer,
    FraudClassError,
    InputError,
    PreprocessingError,
    UnitError,
    UnsupportedModelError,
    check_additivity,
    explain,
    fraud_column,
)
from companion.models.explanations.coalitions import coalition_values

NAMES = ["amount", "distance", "night", "count", "online"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


def make_frame(rows=500, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, len(NAMES))).round(2), columns=NAMES)
    frame["night"] = (frame["night"] > 0.5).astype(float)
    odds = 2 * frame["amount"] * frame["night"] + frame["distance"] - 1 + rng.normal(size=rows)
    return frame, (odds > 0).astype(int)


X, Y = make_frame()
BACKGROUND = X.iloc[100:120]

MAKERS = {
    "forest": lambda: RandomForestClassifier(10, max_depth=5, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=10, random_state=0),
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=10, random_state=0),
    "logistic regression": lambda: LogisticRegression(),
    "scaled logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "scaled forest": lambda: make_pipeline(StandardScaler(), MAKERS["forest"]()),
    "net": lambda: make_net(epochs=2, hidden=(8,), lr=0.01),
    "naive Bayes": lambda: GaussianNB(),
}


@cache
def fitted(name):
    return MAKERS[name]().fit(X, Y)


@pytest.fixture(params=MAKERS)
def model(request):
    return fitted(request.param)


def adds_up(explanation, tolerance=1e-6):
    total = explanation.base + explanation.values.sum(axis=1)
    return np.abs(total - explanation.output).max() < tolerance


# Every model, the same promise


def test_parts_add_up_to_what_the_model_says_in_its_own_unit(model):
    explanation = explain(model, X[:20], background=BACKGROUND)
    assert explanation.values.shape == (20, 5)
    assert adds_up(explanation)
    said = model.predict_proba(X[:20])[:, 1]
    means = expit if explanation.unit == "log-odds" else np.asarray
    assert np.allclose(means(explanation.output), said, atol=1e-6)
    assert np.allclose(explanation.probability, said)


def test_probabilities_are_explained_as_such_for_all(model):
    explanation = explain(model, X[:4], background=BACKGROUND, unit="probability")
    assert explanation.unit == "probability"
    assert adds_up(explanation)
    assert explanation.base == pytest.approx(model.predict_proba(BACKGROUND)[:, 1].mean(), abs=1e-6)


def test_one_row_is_explained_as_it_is_among_many(model):
    among_many = explain(model, X[:6], background=BACKGROUND)
    alone = explain(model, X[4:5], background=BACKGROUND)
    assert np.allclose(alone.values[0], among_many.values[4], atol=1e-6)
    assert alone.base == pytest.approx(among_many.base)


def test_the_same_rows_give_the_same_values(model):
    first = explain(model, X[:3], background=BACKGROUND).values
    assert np.array_equal(first, explain(model, X[:3], background=BACKGROUND).values)


def test_frames_and_arrays_are_explained_alike(model):
    framed = explain(model, X[:5], background=BACKGROUND)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = explain(model, X[:5].to_numpy(), background=BACKGROUND.to_numpy())
    assert np.array_equal(framed.values, plain.values)
    assert framed.names == tuple(NAMES) == plain.names


def test_a_feature_that_the_model_cannot_see_contributes_nothing(model):
    flat = X.assign(online=0.0)
    blind = clone(model).fit(flat, Y)
    explanation = explain(blind, flat[:10], background=flat[100:110])
    assert np.abs(explanation.values[:, NAMES.index("online")]).max() < 1e-12


# Which class is fraud


@pytest.mark.parametrize("maker", ["forest", "histogram boosting", "logistic regression"])
def test_the_name_of_the_class_decides_and_not_its_place(maker):
    expected = explain(fitted(maker), X[:5], background=BACKGROUND)
    turned = MAKERS[maker]().fit(X, np.where(Y == 1, "fraud", "ok"))
    assert fraud_column(turned) == 0
    explanation = explain(turned, X[:5], background=BACKGROUND)
    assert np.allclose(explanation.probability, expected.probability, atol=1e-3)
    assert np.allclose(explanation.values, expected.values, atol=0.02)
    assert adds_up(explanation)


@pytest.mark.parametrize(
    ("classes", "column"),
    [
        ([0, 1], 1),
        ([0.0, 1.0], 1),
        ([-1, 1], 1),
        ([False, True], 1),
        (["fraud", "legit"], 0),
        (["Legitimate", "Mule account"], 1),
        (["0", "1"], 1),
        (["fraud", "ok", "unsure"], 0),
    ],
)
def test_fraud_is_recognised(classes, column):
    assert fraud_column(_Labelled(classes)) == column


@pytest.mark.parametrize("classes", [["a", "b"], [1, 2, "fraud"], [2, 3], ["ok", "x", "y"]])
def test_a_doubt_about_the_class_is_an_error(classes):
    with pytest.raises(FraudClassError, match="pass fraud=") as caught:
        fraud_column(_Labelled(classes))
    assert len(caught.value.classes) == len(classes)


def test_the_label_can_be_said():
    assert fraud_column(_Labelled(["a", "b"]), fraud="a") == 0
    with pytest.raises(FraudClassError, match="no class 'c'"):
        fraud_column(_Labelled(["a", "b"]), fraud="c")


def test_a_model_that_knows_one_class_knows_no_fraud():
    with pytest.raises(FraudClassError, match="one class only"):
        fraud_column(_Labelled([0]))


def test_a_model_without_classes_is_an_error():
    with pytest.raises(FraudClassError, match="fitted"):
        explain(RandomForestClassifier(), X)


def test_three_classes_of_a_forest_are_explained_for_fraud():
    labels = np.where(Y == 1, "fraud", np.where(X["online"] > 0, "ok", "unsure"))
    forest = MAKERS["forest"]().fit(X, labels)
    explanation = explain(forest, X[:9])
    assert np.allclose(explanation.output, forest.predict_proba(X[:9])[:, 0])


# Units


def test_a_forest_has_no_log_odds_and_says_what_it_has():
    with pytest.raises(UnitError, match="possible: probability") as caught:
        explain(fitted("forest"), X[:1], unit="log-odds")
    assert caught.value.possible == ("probability",)


def test_boosting_without_a_background_has_no_probability():
    with pytest.raises(UnitError, match="with background="):
        explain(fitted("boosting"), X[:1], unit="probability")


def test_an_unknown_unit_is_refused():
    with pytest.raises(UnitError, match="'percent'"):
        explain(fitted("forest"), X[:1], unit="percent")


def test_a_network_is_explained_in_log_odds_on_request():
    net = fitted("net")
    explanation = explain(net, X[:4], background=BACKGROUND, unit="log-odds")
    assert explanation.unit == "log-odds"
    assert adds_up(explanation, 1e-5)


def test_any_model_with_probabilities_is_explained_in_log_odds_on_request():
    explanation = explain(GaussianNB().fit(X, Y), X[:3], background=BACKGROUND, unit="log-odds")
    assert np.allclose(expit(explanation.output), explanation.probability, atol=1e-9)
    assert adds_up(explanation)


def test_a_linear_model_of_three_classes_has_no_log_odds():
    labels = np.where(Y == 1, "fraud", np.where(X["online"] > 0, "ok", "unsure"))
    with pytest.raises(UnitError, match="more than two"):
        explain(LogisticRegression().fit(X, labels), X[:1], background=X[:5])


def test_far_beyond_the_digits_of_a_probability_log_odds_still_add_up():
    steep = LogisticRegression(C=1e6).fit(X * 1000, Y)
    explanation = explain(steep, X * 5e4, background=X * 1000)
    assert np.abs(explanation.output).max() > 40
    assert (explanation.probability == 1).any()
    assert adds_up(explanation, 1e-6)


# Pipelines


def test_contributions_behind_a_scaler_are_those_of_the_original_features():
    model = fitted("scaled logistic regression")
    ours = explain(model, X[:9], background=BACKGROUND)
    weights = model[-1].coef_[0] / model[0].scale_
    expected = weights * (X[:9] - BACKGROUND.mean())
    assert np.allclose(ours.values, expected, atol=1e-9)
    assert np.array_equal(ours.data, X[:9].to_numpy())


def test_columns_that_were_reordered_and_dropped_find_their_features():
    mixer = ColumnTransformer([("first", StandardScaler(), ["online", "amount"])], remainder="drop")
    model = make_pipeline(mixer, MAKERS["forest"]()).fit(X, Y)
    explanation = explain(model, X[:30])
    unused = [NAMES.index(name) for name in ("distance", "night", "count")]
    assert (explanation.values[:, unused] == 0).all()
    assert (np.abs(explanation.values[:, [0, 4]]).sum(axis=0) > 0).all()


def test_one_row_alone_finds_its_features_too():
    model = fitted("scaled forest")
    assert np.allclose(explain(model, X[:1]).values, explain(model, X[:50]).values[:1])


@pytest.mark.parametrize("mixer", [PCA(3), Normalizer()], ids=["PCA", "Normalizer"])
@pytest.mark.parametrize("inner", ["forest", "logistic regression"])
def test_preprocessing_that_mixes_columns_is_refused(mixer, inner):
    model = make_pipeline(mixer, MAKERS[inner]()).fit(X, Y)
    with pytest.raises(PreprocessingError, match="is made of the features 0, 1") as caught:
        explain(model, X[:5], background=BACKGROUND)
    assert 0 in caught.value.columns


def test_a_feature_that_becomes_several_columns_is_refused_before_trees():
    model = make_pipeline(SplineTransformer(), MAKERS["forest"]()).fit(X, Y)
    with pytest.raises(PreprocessingError, match="feature 0 becomes"):
        explain(model, X[:5])


def test_a_feature_that_becomes_several_columns_is_summed_before_a_linear_model():
    model = make_pipeline(SplineTransformer(), LogisticRegression()).fit(X, Y)
    explanation = explain(model, X[:5], background=BACKGROUND)

    def score(rows):
        return model.decision_function(pd.DataFrame(rows, columns=NAMES))

    exact, _ = coalition_values(score, X[:5].to_numpy(), BACKGROUND.to_numpy())
    assert np.allclose(explanation.values, exact, atol=1e-9)


def test_preprocessing_that_mixes_columns_is_no_matter_to_coalitions():
    model = make_pipeline(PCA(3), GaussianNB()).fit(X, Y)
    assert adds_up(explain(model, X[:3], background=BACKGROUND))


def test_preprocessing_that_refuses_probes_is_an_error_that_says_so():
    model = make_pipeline(
        OneHotEncoder(handle_unknown="error", sparse_output=False), MAKERS["forest"]()
    ).fit(X[["night"]], Y)
    with pytest.raises(PreprocessingError, match="one value changed"):
        explain(model, X[["night"]][X["night"] == 1][:3])


def test_sparse_preprocessing_is_read_too():
    sparse = FunctionTransformer(lambda table: _sparse(table), accept_sparse=True)
    model = make_pipeline(sparse, MAKERS["forest"]()).fit(X.to_numpy(), Y)
    assert adds_up(explain(model, X[:5].to_numpy()))


def test_a_calibrated_model_is_explained_by_coalitions():
    calibrated = CalibratedClassifierCV(MAKERS["forest"](), cv=2).fit(X, Y)
    assert adds_up(explain(calibrated, X[:2], background=BACKGROUND[:8]))


# Input


def test_a_model_that_needs_a_background_asks_for_one():
    with pytest.raises(BackgroundError, match="background="):
        explain(fitted("net"), X[:1])


def test_a_background_of_other_width_is_refused():
    model = MAKERS["forest"]().fit(X.to_numpy(), Y)
    with pytest.raises(BackgroundError, match="4 features"):
        explain(model, X.to_numpy(), background=X.to_numpy()[:, :4])


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (X.to_numpy()[0], "one row is"),
        (X.to_numpy()[:0], "nothing to explain"),
        ([["a"] * 5], "no table of numbers"),
        (X.assign(night="late"), "hold no numbers; encode them first: night"),
    ],
    ids=["one dimension", "no rows", "text", "a column of text"],
)
def test_what_is_no_table_of_numbers_is_refused(rows, reason):
    with pytest.raises(InputError, match=reason):
        explain(fitted("forest"), rows)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (X[NAMES[::-1]], "another order"),
        (X.drop(columns="night"), "missing: night"),
        (X.assign(more=1.0), "not fitted to these columns: more"),
    ],
    ids=["order", "missing", "extra"],
)
def test_other_columns_than_those_of_the_training_are_refused(frame, reason):
    model = fitted("forest")
    with pytest.raises(InputError, match=reason):
        explain(model, frame)
    with pytest.raises(InputError, match=reason):
        explain(model, X[:1], background=frame)


def test_a_model_without_probabilities_is_refused():
    with pytest.raises(UnsupportedModelError, match="no predict_proba"):
        explain(RidgeClassifier().fit(X, Y), X)


def test_too_many_features_for_coalitions_are_refused():
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(40, 17))
    model = GaussianNB().fit(wide, np.arange(40) % 2)
    with pytest.raises(InputError, match="131,072 coalitions"):
        explain(model, wide[:1], background=wide[5:6])


def test_what_the_model_changes_in_its_input_leaves_the_callers_rows_alone():
    rows = X[:3].to_numpy()
    before = rows.copy()
    explanation = explain(MAKERS["forest"]().fit(X.to_numpy(), Y), rows)
    assert np.array_equal(rows, before)
    rows[:] = 0
    assert np.array_equal(explanation.data, before)


# Additivity


def test_a_sum_that_is_off_names_the_worst_row_and_the_difference():
    values = np.zeros((3, 2))
    values[2, 0], values[1, 1] = 0.5, 0.1
    with pytest.raises(AdditivityError, match="row 2") as caught:
        check_additivity(values, 0.2, np.full(3, 0.2), "probability")
    assert caught.value.row == 2
    assert caught.value.difference == pytest.approx(0.5)


def test_no_number_is_no_sum():
    values = np.zeros((2, 2))
    values[1, 0] = np.nan
    with pytest.raises(AdditivityError, match="row 1"):
        check_additivity(values, 0.0, np.zeros(2), "probability")


def test_rounding_is_no_difference():
    check_additivity(np.full((1, 3), 0.1), 0.0, np.array([0.3]), "probability")


def test_log_odds_that_do_not_mean_the_models_probability_are_refused():
    exponential = GradientBoostingClassifier(n_estimators=5, loss="exponential").fit(X, Y)
    with pytest.raises(AdditivityError):
        explain(exponential, X[:5])


def test_probabilities_that_the_leaves_do_not_give_are_refused():
    class Doubtful(RandomForestClassifier):
        def predict_proba(self, rows):
            return super().predict_proba(rows) * 0.9

    with pytest.raises(AdditivityError):
        explain(Doubtful(5, random_state=0).fit(X, Y), X[:5])


# The result


def test_an_explanation_is_sliced_by_position_slice_and_mask():
    explanation = explain(fitted("forest"), X[:10])
    assert len(explanation) == 10
    assert len(explanation[3]) == 1
    assert np.array_equal(explanation[3].values[0], explanation.values[3])
    assert len(explanation[2:5]) == 3
    assert len(explanation[explanation.probability > 2]) == 0
    assert [len(one) for one in explanation] == [1] * 10


def test_an_explanation_cannot_be_changed():
    explanation = explain(fitted("forest"), X[:2])
    with pytest.raises(ValueError, match="read-only"):
        explanation.values[0, 0] = 1.0
    with pytest.raises(AttributeError):
        explanation.base = 0.0


def test_features_are_found_by_name():
    explanation = explain(MAKERS["forest"]().fit(X.to_numpy(), Y), X[:2].to_numpy())
    assert explanation.column("feature 2") == 2
    with pytest.raises(ValueError):
        explanation.column("night")


def test_importance_is_the_mean_of_absolute_contributions():
    explanation = explain(fitted("forest"), X[:50])
    assert np.allclose(explanation.importance, np.abs(explanation.values).mean(axis=0))


def test_one_explainer_serves_several_threads():
    explainer = Explainer(fitted("histogram boosting"))
    expected = explainer(X).values
    found = []
    threads = [threading.Thread(target=lambda: found.append(explainer(X).values)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(values, expected) for values in found)


def test_a_long_background_is_thinned_for_coalitions_and_whole_for_trees():
    bayes = GaussianNB().fit(X, Y)
    thinned = explain(bayes, X[:1], background=X)
    assert thinned.base == pytest.approx(bayes.predict_proba(X[::10])[:, 1].mean())
    forest = fitted("forest")
    whole = explain(forest, X[:1], background=X)
    assert whole.base == pytest.approx(forest.predict_proba(X)[:, 1].mean())


class _Labelled:
    def __init__(self, classes):
        self.classes_ = np.array(classes, dtype=object)


def _sparse(table):
    from scipy.sparse import csr_matrix

    return csr_matrix(table)
