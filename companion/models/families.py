"""Three families of models behind one small interface: a forest, boosted trees, a network.

Each is a scikit-learn pipeline that takes the feature matrix as it is and gives probabilities, so
the preprocessing travels with the model and cannot differ between training and serving. Each is
the same for the same seed, and trains and predicts on one thread: a service runs many of them side
by side, and OpenMP threads that compete for a core cost far more than they bring.

The trees see float32, as the network does. An ONNX runtime compares float32 numbers; a tree
trained on float64 puts thresholds between values that are equal in float32, and a row on such a
border falls to the other side after the export. Rounding first, in training as well, leaves no
such border.

Forests are Breiman's (*Random Forests*, 2001); boosting on histograms is that of LightGBM (Ke et
al., 2017). On tables like this one trees are hard to beat: Grinsztajn et al., *Why do tree-based
models still outperform deep learning on tabular data?*, 2022.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Self

from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import Pipeline
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from companion.models.labels import as_labels
from companion.models.network import Float32, make_net

FAMILIES = ("forest", "boosting", "net")


class UnknownFamilyError(ValueError):
    """There is no family called `name`; `FAMILIES` lists those there are."""

    def __init__(self, name: object) -> None:
        super().__init__(f"no family is called {name!r}; there are {', '.join(FAMILIES)}")
        self.name = name


class TreePipeline(Pipeline):  # type: ignore[misc]
    """A pipeline of trees that takes labels as every model here does, and stays on one thread.

    Histogram boosting has no `n_jobs`: it takes all threads that OpenMP offers, so the limit is
    set around it and lifted again. It holds for the whole process while it lasts.
    """

    def fit(self, X: ArrayLike, y: ArrayLike, **params: Any) -> Self:
        """Train from scratch on `X` (rows × features) and `y` (rows); raises `LabelError`."""
        with _one_thread():
            super().fit(X, as_labels(y), **params)
        return self

    def predict(self, X: ArrayLike, **params: Any) -> NDArray[Any]:
        """0 or 1 for each row of `X`: whether the probability reaches one half."""
        with _one_thread():
            labels: NDArray[Any] = super().predict(X, **params)
        return labels

    def predict_proba(self, X: ArrayLike, **params: Any) -> NDArray[Any]:
        """Probabilities (rows × 2) of legitimate and fraud for `X` (rows × features)."""
        with _one_thread():
            probabilities: NDArray[Any] = super().predict_proba(X, **params)
        return probabilities


def make_forest(*, seed: int, trees: int = 100, **settings: Any) -> TreePipeline:
    """A random forest, `float32` → `forest`; `settings` go to `RandomForestClassifier`.

    Leaves hold at least five rows, without which its probabilities are those of single rows.
    Raises `LabelError` when fitted to labels other than 0 and 1, `ValueError` for missing or
    infinite features or other columns than those of the training.
    """
    forest = RandomForestClassifier(
        **{"min_samples_leaf": 5} | settings, n_estimators=trees, random_state=seed, n_jobs=1
    )
    return TreePipeline([("float32", Float32()), ("forest", forest)])


def make_boosting(*, seed: int, rounds: int = 150, **settings: Any) -> TreePipeline:
    """Boosted trees, `float32` → `boosting`; `settings` go to `HistGradientBoostingClassifier`.

    All rows are trained on: early stopping would hold some out by chance, against the clock.
    Raises what `make_forest` raises.
    """
    defaults = {"learning_rate": 0.06, "max_leaf_nodes": 8, "l2_regularization": 1.0}
    boosting = HistGradientBoostingClassifier(
        **defaults | settings, max_iter=rounds, early_stopping=False, random_state=seed
    )
    return TreePipeline([("float32", Float32()), ("boosting", boosting)])


def make_model(name: str, *, seed: int) -> Pipeline:
    """The model of family `name` (one of `FAMILIES`) with its defaults, untrained.

    `fit(X, y)`, then `predict_proba(X)` gives rows × 2, legitimate and fraud. Raises
    `UnknownFamilyError`.
    """
    if name == "forest":
        return make_forest(seed=seed)
    if name == "boosting":
        return make_boosting(seed=seed)
    if name == "net":
        return make_net(seed=seed)
    raise UnknownFamilyError(name)


@cache
def _thread_pools() -> ThreadpoolController:
    # Looking for the libraries takes milliseconds, and scikit-learn's own is loaded by now.
    return ThreadpoolController()


@contextmanager
def _one_thread() -> Iterator[None]:
    with _thread_pools().limit(limits=1, user_api="openmp"):
        yield
