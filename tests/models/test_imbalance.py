"""Weights and resampling stay inside the model, and their factor is divided out again."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from companion.models.families import make_boosting, make_forest
from companion.models.imbalance import STRATEGIES, Balanced, ImbalanceError
from companion.models.labels import LabelError
from companion.models.metrics import roc_auc

CHANGED = [strategy for strategy in STRATEGIES if strategy != "plain"]


class Witness(ClassifierMixin, BaseEstimator):
    """Keeps what it was trained on, and says 0.5 of everybody."""

    def __init__(self, class_weight=None):
        self.class_weight = class_weight

    def fit(self, X, y):
        self.X_, self.y_ = X, y
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)


@pytest.fixture(scope="module")
def data():
    """Rows with a number in thousands, a small one, and a flag; 4 % fraud."""
    rng = np.random.default_rng(0)
    y = (np.arange(3000) % 25 == 0).astype(int)
    X = pd.DataFrame(
        {
            "amount": 1000 * (rng.normal(size=3000) + 1.2 * y),
            "ratio": rng.normal(size=3000) + 0.8 * y,
            "online": (rng.random(3000) < 0.3 + 0.3 * y).astype(float),
        }
    )
    return X, y


def logistic():
    return make_pipeline(StandardScaler(), LogisticRegression())


def trained_on(strategy, data, **settings):
    return Balanced(Witness(), strategy, **settings).fit(*data).model_


def test_plain_changes_nothing(data):
    X, y = data
    witness = trained_on("plain", data)
    assert witness.X_ is X
    assert np.array_equal(witness.y_, y)
    assert witness.class_weight is None
    assert Balanced(Witness(), "plain").fit(X, y).weight_ == 1.0


def test_weights_make_the_classes_equal_in_sum(data):
    witness = trained_on("weights", data)
    assert witness.class_weight == {0: 1.0, 1: 24.0}
    assert len(witness.y_) == 3000


@pytest.mark.parametrize(
    ("strategy", "ratio", "frauds", "others"),
    [
        ("oversample", 1.0, 2880, 2880),
        ("oversample", 0.5, 1440, 2880),
        ("undersample", 1.0, 120, 120),
        ("undersample", 0.5, 120, 240),
        ("smote", 1.0, 2880, 2880),
        ("smote", 0.25, 720, 2880),
    ],
)
def test_resampling_reaches_the_ratio(data, strategy, ratio, frauds, others):
    balanced = Balanced(Witness(), strategy, ratio=ratio).fit(*data)
    assert balanced.model_.y_.sum() == frauds
    assert (balanced.model_.y_ == 0).sum() == others
    assert balanced.rows_ == frauds + others
    assert balanced.weight_ == pytest.approx(24 * ratio)


def test_oversampling_repeats_frauds_and_undersampling_drops_others(data):
    X, y = data
    known = set(map(tuple, X[y == 1].to_numpy()))
    more = trained_on("oversample", data)
    assert set(map(tuple, more.X_[more.y_ == 1].to_numpy())) == known
    fewer = trained_on("undersample", data)
    assert set(map(tuple, fewer.X_[fewer.y_ == 1].to_numpy())) == known


def test_smote_keeps_every_row_and_invents_frauds_between_frauds(data):
    X, y = data
    witness = trained_on("smote", data)
    assert list(witness.X_.columns) == list(X.columns)
    assert np.array_equal(witness.X_.iloc[:3000].to_numpy(), X.to_numpy())
    invented = witness.X_.iloc[3000:]
    assert (witness.y_[3000:] == 1).all()
    frauds = X[y == 1]
    assert (invented.min() >= frauds.min() - 1e-9).all()
    assert (invented.max() <= frauds.max() + 1e-9).all()


def test_smote_looks_for_neighbours_in_units_of_each_column():
    """Two groups of frauds, apart in a small column; a large one must not hide that."""
    rng = np.random.default_rng(0)
    group = np.repeat([0.0, 1.0], 20)
    frauds = np.column_stack([group, 1e6 * rng.normal(size=40)])
    others = np.column_stack([rng.choice([0.0, 1.0], 400), 1e6 * rng.normal(size=400)])
    witness = trained_on("smote", (np.concatenate([frauds, others]), [1] * 40 + [0] * 400))
    invented = witness.X_[440:, 0]
    assert np.mean((invented > 0.01) & (invented < 0.99)) < 0.1


def test_smote_puts_a_flag_between_its_values_unless_told_not_to(data):
    between = trained_on("smote", data).X_["online"]
    assert (~between.isin([0.0, 1.0])).any()
    flags = trained_on("smote", data, categorical=["online"]).X_["online"]
    assert flags.isin([0.0, 1.0]).all()


def test_arrays_stay_arrays(data):
    X, y = data
    witness = trained_on("smote", (X.to_numpy(), y), categorical=[2])
    assert isinstance(witness.X_, np.ndarray)
    assert set(witness.X_[:, 2]) == {0.0, 1.0}


@pytest.mark.parametrize("strategy", CHANGED)
def test_the_correction_brings_the_mean_probability_back_to_the_base_rate(data, strategy):
    X, y = data
    believes = Balanced(logistic(), strategy, corrected=False, categorical=["online"]).fit(X, y)
    corrected = Balanced(logistic(), strategy, categorical=["online"]).fit(X, y)
    assert believes.predict_proba(X)[:, 1].mean() > 5 * y.mean()
    assert corrected.predict_proba(X)[:, 1].mean() == pytest.approx(y.mean(), rel=0.25)
    assert roc_auc(y, corrected.predict_proba(X)[:, 1]) == pytest.approx(
        roc_auc(y, believes.predict_proba(X)[:, 1])
    )
    assert np.allclose(corrected.predict_proba(X).sum(axis=1), 1)


def test_labels_follow_the_probabilities(data):
    X, y = data
    balanced = Balanced(logistic(), "weights", corrected=False).fit(X, y)
    assert np.array_equal(balanced.predict(X), balanced.predict_proba(X)[:, 1] > 0.5)


@pytest.mark.parametrize("make", [make_forest, make_boosting])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_families_take_every_strategy(data, make, strategy):
    model = make(seed=0, **({"trees": 5} if make is make_forest else {"rounds": 5}))
    balanced = Balanced(model, strategy, categorical=["online"]).fit(*data)
    assert roc_auc(data[1], balanced.predict_proba(data[0])[:, 1]) > 0.7
    assert type(balanced.model_) is type(model)


def test_the_same_seed_invents_the_same_frauds(data):
    one, again, other = (trained_on("smote", data, seed=seed).X_ for seed in (1, 1, 2))
    assert one.equals(again)
    assert not one.equals(other)


def test_cross_validation_resamples_training_folds_and_nothing_else():
    """With labels that nothing predicts, an honest score is that of chance."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(1200, 4)))
    y = (np.arange(1200) % 20 == 0).astype(int)
    neighbours = KNeighborsClassifier(n_neighbors=3)
    inside = cross_val_score(Balanced(neighbours, "smote"), X, y, cv=4, scoring="roc_auc").mean()
    witness = trained_on("smote", (X, y))
    outside = cross_val_score(neighbours, witness.X_, witness.y_, cv=4, scoring="roc_auc").mean()
    assert abs(inside - 0.5) < 0.12
    assert outside > 0.9


def test_a_clone_has_the_settings_and_not_the_training(data):
    copy = clone(Balanced(Witness(), "smote", ratio=0.5, corrected=False, seed=3).fit(*data))
    assert (copy.strategy, copy.ratio, copy.corrected, copy.seed) == ("smote", 0.5, False, 3)
    with pytest.raises(NotFittedError):
        copy.predict_proba(data[0])


def test_the_model_that_was_given_stays_untrained(data):
    witness = Witness()
    Balanced(witness, "weights").fit(*data)
    assert not hasattr(witness, "X_")
    assert witness.class_weight is None


# What is refused


def test_an_unknown_strategy_is_refused_with_the_known_ones(data):
    with pytest.raises(ImbalanceError, match="plain, weights"):
        Balanced(Witness(), "adasyn").fit(*data)


@pytest.mark.parametrize("ratio", [0.01, 0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("strategy", CHANGED)
def test_a_ratio_that_leaves_nothing_to_balance_is_refused(data, strategy, ratio):
    with pytest.raises(ImbalanceError, match="120 in 3000"):
        Balanced(Witness(), strategy, ratio=ratio).fit(*data)


def test_smote_needs_more_frauds_than_neighbours():
    X, y = np.arange(60.0).reshape(30, 2), [1] * 5 + [0] * 25
    with pytest.raises(ImbalanceError, match="5 frauds"):
        Balanced(Witness(), "smote").fit(X, y)


def test_an_unknown_column_is_refused(data):
    with pytest.raises(ImbalanceError, match="onlin"):
        Balanced(Witness(), "smote", categorical=["onlin"]).fit(*data)


@pytest.mark.parametrize("model", [GaussianNB(), make_pipeline(StandardScaler(), GaussianNB())])
def test_a_model_without_class_weights_cannot_be_weighted(data, model):
    with pytest.raises(ImbalanceError, match="class_weight"):
        Balanced(model, "weights").fit(*data)


def test_labels_are_checked(data):
    X, y = data
    with pytest.raises(LabelError):
        Balanced(Witness(), "smote").fit(X, y * 0)
