"""What leaves as ONNX says what the model says, to the sixth digit, or does not leave."""

import warnings

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from imblearn.pipeline import Pipeline as SamplingPipeline
from imblearn.under_sampling import RandomUnderSampler
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from threadpoolctl import threadpool_limits

from companion.models.network import Float32, FraudNet, make_net
from companion.models.onnx import export as exporting
from companion.models.onnx import trees
from companion.models.onnx.errors import (
    InvalidRowsError,
    NotProbabilitiesError,
    ParityError,
    UnsupportedModelError,
)
from companion.models.onnx.export import export_onnx
from companion.models.onnx.model import OnnxModel
from companion.models.onnx.parity import boundary_rows, check_probabilities

TOLERANCE = 1e-6


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(10)
    X = pd.DataFrame(
        {
            "amount": np.round(rng.lognormal(3, 1, 1200), 2),
            "distance": rng.exponential(20, 1200),
            "hour": np.sin(rng.integers(0, 24, 1200) / 24 * 2 * np.pi),
            "online": rng.integers(0, 2, 1200).astype(bool),
        }
    )
    risk = 1 / (1 + np.exp(-(X["amount"] / 20 + X["distance"] / 20 - 4)))
    return X, pd.Series((rng.random(1200) < risk).astype(int))


def forest(**settings):
    return RandomForestClassifier(**({"n_estimators": 30, "random_state": 0} | settings))


def boosting():
    return HistGradientBoostingClassifier(max_iter=30, random_state=0)


def small_net(**settings):
    return make_net(**({"epochs": 3, "hidden": (8, 4), "lr": 0.01} | settings))


MODELS = {
    "forest": lambda: make_pipeline(Float32(), forest()),
    "bare forest": forest,
    "forest after a scaler": lambda: make_pipeline(Float32(), StandardScaler(), forest()),
    "forest after a scaler that only centres": lambda: make_pipeline(
        Float32(), StandardScaler(with_std=False), forest()
    ),
    "forest after a scaler that only scales": lambda: make_pipeline(
        Float32(), StandardScaler(with_mean=False), forest()
    ),
    "boosting": lambda: make_pipeline(Float32(), boosting()),
    "boosting after a scaler": lambda: make_pipeline(Float32(), StandardScaler(), boosting()),
    "net": small_net,
    "logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "logistic regression in float32": lambda: make_pipeline(
        Float32(), StandardScaler(), LogisticRegression()
    ),
    "a pipeline with a gap": lambda: Pipeline(
        [("cast", Float32()), ("nothing", None), ("idle", "passthrough"), ("model", forest())]
    ),
    "resampled while training": lambda: SamplingPipeline(
        [("cast", Float32()), ("less", RandomUnderSampler(random_state=0)), ("model", boosting())]
    ),
    "forest, Platt": lambda: CalibratedClassifierCV(MODELS["forest"](), cv=2),
    "forest, isotonic": lambda: CalibratedClassifierCV(MODELS["forest"](), cv=2, method="isotonic"),
    "boosting, isotonic": lambda: CalibratedClassifierCV(
        MODELS["boosting"](), cv=2, method="isotonic"
    ),
    "net, Platt": lambda: CalibratedClassifierCV(small_net(), cv=2),
    "logistic regression, Platt": lambda: CalibratedClassifierCV(
        MODELS["logistic regression"](), cv=2
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_says_the_same_through_onnx(name, data):
    X, y = data
    model = MODELS[name]().fit(X, y)
    exported = OnnxModel(export_onnx(model, X[:300], tolerance=TOLERANCE))
    assert np.abs(exported.predict_proba(X) - model.predict_proba(X)).max() <= TOLERANCE
    assert exported.predict_proba(X).std() > 0.01


@pytest.mark.parametrize("name", ["forest", "boosting", "forest after a scaler"])
def test_a_row_on_every_single_threshold_takes_the_models_branch(name, data):
    X, y = data
    model = MODELS[name]().fit(X, y)
    graph = exporting.Graph(X.shape[1])
    exporting.score(model, graph, graph.input())
    rows = boundary_rows(X.to_numpy(np.float32), graph.boundaries)
    assert len(rows) > 600
    exported = OnnxModel(export_onnx(model, X))
    expected = model.predict_proba(pd.DataFrame(rows, columns=X.columns))
    assert np.abs(exported.predict_proba(rows) - expected).max() <= TOLERANCE


def test_thresholds_rounded_to_float32_are_found_out(data, monkeypatch):
    X, y = data
    model = MODELS["boosting"]().fit(X, y)
    original = trees._of_boosting

    def rounded(records):
        records = records.copy()
        records["num_threshold"] = np.nextafter(
            records["num_threshold"].astype(np.float32), np.float32(np.inf)
        )
        return original(records)

    monkeypatch.setattr(trees, "_of_boosting", rounded)
    with pytest.raises(ParityError, match="rows at thresholds") as caught:
        export_onnx(model, X[:300])
    assert set(caught.value.features) == set(X.columns)
    assert caught.value.difference > caught.value.tolerance == 1e-6
    assert abs(caught.value.expected - caught.value.got) == pytest.approx(caught.value.difference)


def test_a_difference_on_the_given_rows_names_the_worst_of_them(data, monkeypatch):
    X, y = data
    model = make_pipeline(Float32(), StandardScaler(), LogisticRegression()).fit(X, y)
    says = model.predict_proba

    def otherwise(rows):
        found = says(rows)
        found[7] = [0.25, 0.75]
        return found

    monkeypatch.setattr(model, "predict_proba", otherwise)
    with pytest.raises(ParityError, match=r"given rows, row 7: the model says 0\.75") as caught:
        export_onnx(model, X[:50])
    assert caught.value.row == 7
    assert caught.value.features["amount"] == pytest.approx(X["amount"][7])


def test_a_model_that_reads_more_digits_than_float32_has_is_refused(data):
    _, y = data
    near = pd.DataFrame({"x": 1.0 + np.asarray(y) * 1e-12})
    model = boosting().fit(near, y)
    assert model.score(near, y) == 1.0
    with pytest.raises(ParityError, match="begin its pipeline with Float32") as caught:
        export_onnx(model, near)
    assert caught.value.origin == "rows in full precision"


def test_one_row_and_many_rows_give_the_same(data):
    X, y = data
    exported = OnnxModel(export_onnx(MODELS["boosting"]().fit(X, y), X[:100]))
    rows = X.to_numpy(np.float32)[:64]
    together = exported.predict_proba(rows)
    assert np.array_equal([exported.predict_proba(row[np.newaxis])[0] for row in rows], together)


def test_a_tree_without_a_split_is_exported(data):
    X, y = data
    model = forest(n_estimators=3, min_samples_leaf=len(X)).fit(X, y)
    assert {estimator.tree_.node_count for estimator in model.estimators_} == {1}
    exported = OnnxModel(export_onnx(model, X[:50]))
    assert np.allclose(exported.predict_proba(X), model.predict_proba(X), atol=TOLERANCE)


def test_a_calibration_that_knows_one_score_only_is_exported(data):
    X, y = data
    constant = forest(n_estimators=1, min_samples_leaf=len(X), bootstrap=False).fit(X, y)
    model = CalibratedClassifierCV(FrozenEstimator(constant), method="isotonic").fit(X, y)
    exported = OnnxModel(export_onnx(model, X[:50]))
    assert np.allclose(exported.predict_proba(X), model.predict_proba(X), atol=TOLERANCE)


def test_the_file_is_one_self_contained_model_with_the_agreed_ends(data):
    X, y = data
    model = onnx.load_from_string(export_onnx(MODELS["forest"]().fit(X, y), X[:50]))
    assert [value.name for value in model.graph.input] == ["features"]
    assert [value.name for value in model.graph.output] == ["probabilities"]
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [(d.dim_param, d.dim_value) for d in shape] == [("rows", 0), ("", 4)]
    assert not any(constant.external_data for constant in model.graph.initializer)


def test_the_same_model_makes_the_same_bytes(data):
    X, y = data
    model = MODELS["boosting"]().fit(X, y)
    assert export_onnx(model, X[:50]) == export_onnx(model, X[50:100])


@pytest.mark.parametrize("name", ["forest", "net", "forest, Platt", "logistic regression"])
def test_no_warning_leaks_out(name, data, capfd):
    X, y = data
    matrix = X.to_numpy(np.float64)
    for model, rows in (
        (MODELS[name]().fit(X, y), X),
        (MODELS[name]().fit(X, y), matrix),
        (MODELS[name]().fit(matrix, y), X),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            OnnxModel(export_onnx(model, rows[:50])).predict_proba(matrix)
    assert capfd.readouterr() == ("", "")


def test_names_come_from_the_training_then_from_the_rows_then_from_counting(data):
    X, y = data
    matrix = X.to_numpy(np.float64)
    trained = make_pipeline(StandardScaler(), LogisticRegression())
    assert OnnxModel(export_onnx(trained.fit(X, y), matrix)).features == tuple(X.columns)
    nameless = make_pipeline(StandardScaler(), LogisticRegression()).fit(matrix, y)
    assert OnnxModel(export_onnx(nameless, X)).features == tuple(X.columns)
    assert OnnxModel(export_onnx(nameless, matrix)).features == ("f0", "f1", "f2", "f3")


def test_rows_with_columns_in_another_order_are_put_right(data):
    X, y = data
    model = MODELS["forest"]().fit(X, y)
    assert export_onnx(model, X[:50]) == export_onnx(model, X[:50][list(X.columns[::-1])])


def test_a_net_that_gives_logits_is_refused(data):
    X, y = data
    net = FraudNet(criterion=torch.nn.NLLLoss, max_epochs=1)
    logits = make_pipeline(StandardScaler(), Float32(), net).fit(X, y)
    with pytest.raises(NotProbabilitiesError, match="the model gives") as caught:
        export_onnx(logits, X)
    assert len(caught.value.found) == 2


@pytest.mark.parametrize("pair", [[0.5, 0.4], [1.2, -0.2], [float("nan"), 0.5], [0.5 + 2e-6, 0.5]])
def test_a_pair_that_is_no_distribution_is_refused(pair):
    with pytest.raises(NotProbabilitiesError, match="row 1") as caught:
        check_probabilities("it", np.array([[0.5, 0.5], pair]))
    assert caught.value.row == 1


class Dropping(torch.nn.Module):
    def __init__(self, n_features):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(n_features, 2))

    def forward(self, x):
        return self.layers(x)


def unfitted(X, y):
    return forest()


def of_words(X, y):
    return forest().fit(X, y.map({0: "good", 1: "bad"}))


def of_categories(X, y):
    return HistGradientBoostingClassifier(
        max_iter=5, categorical_features=[3], min_samples_leaf=5
    ).fit(X.assign(online=np.arange(len(X)) % 7), (y + np.arange(len(X)) % 7 > 3).astype(int))


def of_a_foreign_module(X, y):
    return make_pipeline(StandardScaler(), Float32(), FraudNet(Dropping, max_epochs=1)).fit(X, y)


def with_a_tanh(X, y):
    model = small_net().fit(X, y)
    model["net"].module_.layers[1] = torch.nn.Tanh()
    return model


@pytest.mark.parametrize(
    ("build", "part"),
    [
        (unfitted, "RandomForestClassifier"),
        (of_words, "RandomForestClassifier"),
        (of_categories, "HistGradientBoostingClassifier"),
        (of_a_foreign_module, "Dropping"),
        (with_a_tanh, "Tanh"),
        (lambda X, y: KNeighborsClassifier().fit(X, y), "KNeighborsClassifier"),
        (lambda X, y: make_pipeline(MinMaxScaler(), forest()).fit(X, y), "MinMaxScaler"),
        (
            lambda X, y: CalibratedClassifierCV(forest(), cv=2, method="temperature").fit(X, y),
            "CalibratedClassifierCV",
        ),
    ],
)
def test_a_part_that_is_not_known_is_named(build, part, data):
    X, y = data
    with pytest.raises(UnsupportedModelError, match="cannot be exported") as caught:
        export_onnx(build(X, y), X)
    assert caught.value.part == part


def test_dropout_predicts_as_if_it_were_not_there(data):
    X, y = data
    model = small_net().fit(X, y)
    model["net"].module_.layers.insert(2, torch.nn.Dropout(0.5))
    exported = OnnxModel(export_onnx(model, X[:100]))
    assert np.allclose(exported.predict_proba(X), model.predict_proba(X), atol=TOLERANCE)


def test_a_proof_needs_rows(data):
    X, y = data
    with pytest.raises(InvalidRowsError, match="at least one row"):
        export_onnx(MODELS["forest"]().fit(X, y), X[:0])


def test_of_very_many_thresholds_an_even_selection_is_tried():
    rows = np.zeros((5, 2), dtype=np.float32)
    values = np.arange(5000, dtype=np.float64)
    found = boundary_rows(rows, [(np.ones(5000, dtype=np.int64), values)])
    assert found.shape == (3000, 2)
    at = found[1000:2000, 1]
    assert at[0] == 0
    assert at[-1] == 4999
    assert np.all(found[:1000, 1] < at)
    assert np.all(found[2000:, 1] > at)
    assert not found[:, 0].any()
