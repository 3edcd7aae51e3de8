"""Every family: one interface, one thread, the same model for the same seed."""

import pickle

import numpy as np
import pytest
import threadpoolctl
from sklearn.base import clone
from sklearn.metrics import average_precision_score

from companion.features import feature_matrix
from companion.models.families import (
    FAMILIES,
    UnknownFamilyError,
    make_boosting,
    make_forest,
    make_model,
)
from companion.models.labels import LabelError
from companion.models.network import DeviceUnavailableError, make_net, single_threaded
from companion.models.splits import split_by_time
from companion.transactions import simulate


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with single_threaded():
        yield


@pytest.fixture(scope="module")
def data():
    return feature_matrix(simulate(2000, seed=3, fraud_rate=0.1))


def small(name, seed=0):
    model = make_model(name, seed=seed)
    fewer = {
        "forest": {"forest__n_estimators": 20},
        "boosting": {"boosting__max_iter": 20},
        "net": {"net__max_epochs": 3, "net__lr": 0.01},
    }
    return model.set_params(**fewer[name])


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(family, data):
    return small(family).fit(*data)


def test_probabilities_are_rows_by_two_and_sum_to_one(fitted, data):
    probabilities = fitted.predict_proba(data[0])
    assert probabilities.shape == (len(data[0]), 2)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert (probabilities >= 0).all()
    assert fitted.classes_.tolist() == [0, 1]


def test_frauds_score_higher(fitted, data):
    X, y = data
    assert average_precision_score(y, fitted.predict_proba(X)[:, 1]) > 3 * y.mean()


def test_labels_are_one_where_the_probability_of_fraud_exceeds_one_half(fitted, data):
    fraud = fitted.predict_proba(data[0])[:, 1]
    assert np.array_equal(fitted.predict(data[0]) == 1, fraud > 0.5)


def test_the_same_seed_gives_the_same_model(family, data, fitted):
    again = small(family).fit(*data)
    assert np.array_equal(again.predict_proba(data[0]), fitted.predict_proba(data[0]))


@pytest.mark.parametrize("name", ["forest", "net"])
def test_another_seed_gives_another_model(name, data):
    one, other = (small(name, seed).fit(*data).predict_proba(data[0]) for seed in (1, 2))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("name", ["forest", "boosting"])
def test_rounding_the_features_to_float32_changes_no_tree(name, data):
    X, y = data
    rounded = X.astype("float32").astype("float64")
    assert not rounded.equals(X)
    one, other = (small(name).fit(table, y).predict_proba(table) for table in (X, rounded))
    assert np.array_equal(one, other)


def test_thresholds_of_trees_lie_between_float32_values(data):
    """Differences beyond float32 cannot be split upon, so an export cannot lose them."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    X = (1.0 + y * 1e-12)[:, None]  # equal in float32, separable in float64
    for make in (make_forest, make_boosting):
        probabilities = make(seed=0).fit(X, y).predict_proba(X)[:, 1]
        assert np.ptp(probabilities) == 0


def test_a_model_survives_cloning_and_pickling(family, data, fitted):
    copy = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(copy.predict_proba(data[0]), fitted.predict_proba(data[0]))
    refitted = clone(fitted).fit(*data)
    assert np.array_equal(refitted.predict_proba(data[0]), fitted.predict_proba(data[0]))


def test_columns_in_another_order_are_refused(data, fitted):
    X = data[0]
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict_proba(X[X.columns[::-1]])


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_in_float32_are_refused(family, data, fitted, value):
    X, y = data
    broken = X.copy()
    broken.iloc[3, 0] = value
    if family == "net" and value == 1e300:
        pytest.skip("the network scales first")
    with pytest.raises(ValueError, match="contains"):
        fitted.predict_proba(broken)
    with pytest.raises(ValueError, match="contains"):
        small(family).fit(broken, y)


@pytest.mark.parametrize("labels", [lambda y: y * 2 - 1, lambda y: y * 0, lambda y: y.astype(str)])
def test_labels_that_are_not_zero_and_one_are_refused(family, data, labels):
    X, y = data
    with pytest.raises(LabelError):
        small(family).fit(X, labels(y))


def test_an_unknown_family_is_refused_with_the_known_ones():
    with pytest.raises(UnknownFamilyError, match="forest, boosting, net") as caught:
        make_model("svm", seed=0)
    assert caught.value.name == "svm"


def test_settings_reach_the_trees():
    assert make_forest(seed=1, trees=7, max_depth=3)["forest"].max_depth == 3
    assert make_forest(seed=1, trees=7)["forest"].n_estimators == 7
    assert make_boosting(seed=1, rounds=9, learning_rate=0.3)["boosting"].learning_rate == 0.3


def test_boosting_runs_on_one_thread_and_puts_the_number_back(data, monkeypatch):
    seen = []

    def openmp_threads():
        pools = threadpoolctl.threadpool_info()
        return {pool["num_threads"] for pool in pools if pool["user_api"] == "openmp"}

    model = make_boosting(seed=0, rounds=2)
    original = type(model["boosting"]).fit
    monkeypatch.setattr(
        type(model["boosting"]),
        "fit",
        lambda self, *args, **rest: (seen.append(openmp_threads()), original(self, *args, **rest))[
            1
        ],
    )
    with threadpoolctl.threadpool_limits(2, user_api="openmp"):
        model.fit(*data)
        assert openmp_threads() == {2}
    assert seen == [{1}]


def test_a_forest_beats_the_base_rate_on_later_transactions():
    transactions = simulate(6000, seed=5, days=60)
    X, y = feature_matrix(transactions)
    parts = split_by_time(transactions)
    model = small("forest").fit(X.iloc[parts.train], y.iloc[parts.train])
    later = y.iloc[parts.test]
    scores = model.predict_proba(X.iloc[parts.test])[:, 1]
    assert average_precision_score(later, scores) > 5 * later.mean()


# Devices of the network


@pytest.mark.parametrize("device", ["cuda:99", "mps", "warp"])
def test_a_device_that_is_not_there_is_refused_by_name(device):
    with pytest.raises(DeviceUnavailableError, match="cpu") as caught:
        make_net(device=device)
    assert caught.value.device == device


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(DeviceUnavailableError):
        make_net(device="cuda")


def test_cuda_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert make_net(device="cuda")["net"].device == "cuda"


def test_the_processor_is_the_default():
    assert make_net()["net"].device == "cpu"
