"""The network as a scikit-learn classifier: right loss, right types, right seed."""

import pickle
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from companion.features import feature_matrix
from companion.models import FraudMLP, FraudNet, LabelError, make_net, single_threaded
from companion.transactions import simulate


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with single_threaded():
        yield


@pytest.fixture(scope="module")
def data():
    return feature_matrix(simulate(1500, seed=3, fraud_rate=0.1))


def small_net(**settings):
    return make_net(**({"epochs": 3, "lr": 0.01, "hidden": (8,), "batch_size": 64} | settings))


def weights(pipeline):
    return [parameter.tolist() for parameter in pipeline["net"].module_.parameters()]


# The module


def test_the_module_returns_logits_of_two_classes():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        logits = FraudMLP(5)(torch.randn(200, 5) * 10)
    assert logits.shape == (200, 2)
    assert logits.min() < 0
    assert logits.max() > 1
    assert not torch.allclose(logits.sum(dim=1), torch.ones(200))


def test_the_hidden_layers_are_as_wide_as_asked():
    shapes = [tuple(parameter.shape) for parameter in FraudMLP(5, (8, 4)).parameters()]
    assert shapes == [(8, 5), (8,), (4, 8), (4,), (2, 4), (2,)]


def test_without_hidden_layers_it_is_a_logistic_regression():
    assert [tuple(p.shape) for p in FraudMLP(5, ()).parameters()] == [(2, 5), (2,)]


# The pipeline


def test_probabilities_lie_between_zero_and_one_and_each_row_sums_to_one(data):
    X, y = data
    probabilities = small_net().fit(X, y).predict_proba(X)
    assert probabilities.shape == (len(X), 2)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_it_learns_to_rank_fraud_above_the_rest():
    X, y = feature_matrix(simulate(6000, seed=3, fraud_rate=0.1))
    net = make_net(lr=0.01, epochs=10).fit(X[:4000], y[:4000])
    assert roc_auc_score(y[4000:], net.predict_proba(X[4000:])[:, 1]) > 0.8


def test_the_loss_falls_below_the_floor_of_a_softmax_taken_twice():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    net = make_net(lr=0.05, epochs=20, batch_size=32).fit(X, (X[:, 0] > 0).astype(int))
    assert net["net"].history[-1, "train_loss"] < 0.1 < np.log1p(np.exp(-1))


def test_all_rows_are_trained_on(data):
    X, y = data
    net = small_net().fit(X, y)
    assert sum(net["net"].history[-1, "batches", :, "train_batch_size"]) == len(X)


@pytest.mark.parametrize(
    "convert",
    [
        lambda X: X,
        lambda X: X.to_numpy(),
        lambda X: X.to_numpy(dtype="float32"),
        lambda X: (X * 100).astype("int64"),
        lambda X: X.astype("Float64"),
        lambda X: X.to_numpy().tolist(),
    ],
    ids=["DataFrame", "array", "float32", "whole numbers", "nullable", "lists"],
)
def test_any_table_of_numbers_fits_and_predicts(data, convert):
    X, y = data
    net = small_net().fit(convert(X), y)
    assert net.predict_proba(convert(X[:5])).shape == (5, 2)


def test_one_row_is_predicted_as_it_is_among_many(data):
    X, y = data
    net = small_net().fit(X, y)
    assert np.allclose(net.predict_proba(X[7:8]), net.predict_proba(X)[7:8], atol=1e-6)


def test_output_set_to_pandas_does_not_reach_the_module(data):
    X, y = data
    plain = small_net().fit(X, y).predict_proba(X)
    by_step = small_net().set_output(transform="pandas").fit(X, y).predict_proba(X)
    with sklearn.config_context(transform_output="pandas"):
        by_setting = small_net().fit(X, y).predict_proba(X)
    assert np.array_equal(plain, by_step)
    assert np.array_equal(plain, by_setting)


@pytest.mark.parametrize("dtype", ["bool", "int8", "float64", "boolean"])
def test_every_kind_of_zero_and_one_gives_the_same_model(data, dtype):
    X, y = data
    assert weights(small_net().fit(X, y)) == weights(small_net().fit(X, y.astype(dtype)))


def test_labels_that_are_not_zero_and_one_are_refused_before_training(data):
    X, y = data
    with pytest.raises(LabelError, match="-1"):
        small_net().fit(X, y * 2 - 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_missing_and_infinite_features_are_refused_in_training_and_prediction(data, value):
    X, y = data
    broken = X.copy()
    broken.iloc[3, 0] = value
    with pytest.raises(ValueError, match="contains"):
        small_net().fit(broken, y)
    net = small_net().fit(X, y)
    with pytest.raises(ValueError, match="contains"):
        net.predict_proba(broken)


def test_columns_in_another_order_are_refused(data):
    X, y = data
    net = small_net().fit(X, y)
    with pytest.raises(ValueError, match="feature names"):
        net.predict_proba(X[X.columns[::-1]])


# The seed


def test_two_fits_with_one_seed_agree_bit_for_bit(data):
    X, y = data
    assert weights(small_net(seed=5).fit(X, y)) == weights(small_net(seed=5).fit(X, y))


def test_fitting_again_starts_from_scratch(data):
    X, y = data
    net = small_net().fit(X, y)
    first = weights(net)
    assert weights(net.fit(X, y)) == first


def test_another_seed_gives_another_model(data):
    X, y = data
    assert weights(small_net(seed=5).fit(X, y)) != weights(small_net(seed=6).fit(X, y))


def test_batches_are_shuffled(data):
    X, y = data
    order = np.argsort(y.to_numpy(), kind="stable")
    in_order = small_net().set_params(net__iterator_train__shuffle=False)
    shuffled = small_net().fit(X.iloc[order], y.iloc[order])
    assert weights(in_order.fit(X.iloc[order], y.iloc[order])) != weights(shuffled)


def test_the_global_generator_neither_matters_nor_moves(data):
    X, y = data
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights(small_net().fit(X, y))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert weights(small_net().fit(X, y)) == first


# scikit-learn's tools


def test_parameters_are_set_by_their_path(data):
    X, y = data
    net = small_net().set_params(net__lr=0.5, net__module__hidden=(3,), net__seed=9)
    net.fit(X, y)
    assert net["net"].optimizer_.param_groups[0]["lr"] == 0.5
    assert net["net"].module_.layers[0].out_features == 3
    assert net.get_params()["net__seed"] == 9


def test_a_clone_has_the_parameters_and_not_the_training(data):
    X, y = data
    fitted = small_net(class_weight="balanced", seed=4).fit(X, y)
    copy = clone(fitted)
    assert copy["net"].get_params(deep=False)["class_weight"] == "balanced"
    with pytest.raises(sklearn.exceptions.NotFittedError):
        copy.predict_proba(X)
    assert weights(copy.fit(X, y)) == weights(fitted)


def test_a_fitted_net_survives_pickling(data):
    X, y = data
    net = small_net().fit(X, y)
    copy = pickle.loads(pickle.dumps(net))
    assert np.array_equal(copy.predict_proba(X), net.predict_proba(X))


@pytest.mark.parametrize("scoring", ["neg_log_loss", "roc_auc", "average_precision", "f1"])
@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_cross_validation_gives_finite_scores(data, scoring, dtype):
    X, y = data
    scores = cross_val_score(
        small_net(), X, y.astype(dtype), scoring=scoring, cv=3, error_score="raise"
    )
    assert np.isfinite(scores).all()


def test_a_grid_is_searched(data):
    X, y = data
    grid = {"net__lr": [1e-5, 0.02], "net__module__hidden": [(4,), (8, 4)]}
    search = GridSearchCV(small_net(), grid, scoring="neg_log_loss", cv=2, error_score="raise")
    search.fit(X, y)
    assert search.best_params_["net__lr"] == 0.02
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_data_of_another_width_makes_another_net(data):
    X, y = data
    net = small_net().fit(X, y)
    net.fit(X[["log_amount", "log_distance_km"]], y)
    assert net["net"].module_.layers[0].in_features == 2


def test_the_net_alone_takes_arrays(data):
    X, y = data
    scaled = StandardScaler().fit_transform(X).astype("float32")
    net = FraudNet(max_epochs=1).fit(scaled, y)
    assert net.predict_proba(scaled).shape == (len(X), 2)


# Class weights


def test_balanced_weights_raise_the_mean_probability_of_fraud(data):
    X, y = data
    plain = small_net().fit(X, y).predict_proba(X)[:, 1].mean()
    balanced = small_net(class_weight="balanced").fit(X, y).predict_proba(X)[:, 1].mean()
    assert balanced > plain + 0.1


def test_given_weights_reach_the_loss(data):
    X, y = data
    net = small_net(class_weight={0: 1.0, 1: 7.0}).fit(X, y)
    assert net["net"].criterion_.weight.tolist() == [1.0, 7.0]


def test_without_weights_the_loss_has_none(data):
    X, y = data
    assert small_net().fit(X, y)["net"].criterion_.weight is None


# Threads


def test_the_number_of_threads_is_put_back_even_after_an_error():
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def fail():
        with single_threaded():
            assert torch.get_num_threads() == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_importing_the_room_sets_no_threads():
    code = (
        "import torch; before = torch.get_num_threads(); import companion.models;"
        "assert torch.get_num_threads() == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_predicting_in_many_threads_gives_the_same_rows(data):
    X, y = data
    net = small_net().fit(X, y)
    expected = net.predict_proba(X)
    answers = [None] * 4

    def predict(place):
        answers[place] = net.predict_proba(X)

    threads = [threading.Thread(target=predict, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(answer, expected) for answer in answers)


def test_the_pipeline_has_the_named_steps():
    assert isinstance(make_net(), Pipeline)
    assert list(make_net().named_steps) == ["scale", "float32", "net"]


def test_only_the_models_room_imports_torch():
    code = (
        "import sys, companion.storage, companion.features, companion.transactions,"
        " companion.serving; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_frame_keeps_its_rows_when_predicting(data):
    X, y = data
    net = small_net().fit(X, y)
    shuffled = X.sample(frac=1, random_state=0)
    expected = pd.Series(net.predict_proba(X)[:, 1], index=X.index).loc[shuffled.index]
    assert np.allclose(net.predict_proba(shuffled)[:, 1], expected, atol=1e-6)
