"""Training on few frauds: weights or resampling, inside the model, with the probabilities mended.

Three in a hundred rows are fraud, and three treatments are offered for it: weigh the frauds more,
repeat them or drop others at random, or invent frauds between real ones (SMOTE; Chawla et al.,
2002). All three tell the model that fraud is common. It believes so: the odds that it predicts are
too high by the factor that was put in, and a threshold of 0.5 then seems to work. Since the factor
is known, it can be divided out (`companion.models.calibration`).

Resampling belongs *inside* `fit`. Done beforehand, copies and near-copies of one fraud land on
both sides of the next split, and the test examines the training. `Balanced` is an ordinary
classifier, so a cross-validation resamples its training folds and nothing else. What was resampled
is forgotten after training: `model_` is a plain model, to be exported and explained as any other.

Whether any of it helps is another question; see van den Goorbergh et al., *The harm of class
imbalance corrections for risk prediction models*, 2022, and question 6.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from imblearn.over_sampling import SMOTE, SMOTENC, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from companion.models.calibration import undo_weight
from companion.models.labels import as_labels

Strategy = Literal["plain", "weights", "oversample", "undersample", "smote"]
STRATEGIES: tuple[Strategy, ...] = ("plain", "weights", "oversample", "undersample", "smote")

_NEIGHBOURS = 5


class ImbalanceError(ValueError):
    """The strategy is unknown, or cannot be carried out on these rows or with this model."""


class Balanced(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """`model` trained as if there were `ratio` frauds for each legitimate row.

    `strategy` is one of `STRATEGIES`. With `corrected` the probabilities are those of the rows
    that `fit` was given, else those of the world that the model was shown. `categorical` names
    (or, for arrays, numbers) the columns that SMOTE must not put between two values.

    After `fit`: `weight_`, the factor by which the odds of fraud were raised, `rows_`, how many
    rows the model saw, and `model_`, the trained model, uncorrected.
    """

    def __init__(
        self,
        model: Any,
        strategy: Strategy = "smote",
        *,
        ratio: float = 1.0,
        corrected: bool = True,
        categorical: Sequence[str] | Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        self.model = model
        self.strategy = strategy
        self.ratio = ratio
        self.corrected = corrected
        self.categorical = categorical
        self.seed = seed

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on `X` (rows × features) and `y` (rows), treated by the strategy.

        Raises `LabelError`, and `ImbalanceError` for an unknown strategy, more frauds than `ratio`
        asks for, fewer than six frauds with SMOTE, unknown `categorical` columns, or a model
        without class weights where weights are asked for.
        """
        labels = as_labels(y)
        if self.strategy not in STRATEGIES:
            raise ImbalanceError(
                f"no strategy is called {self.strategy!r}; there are {', '.join(STRATEGIES)}"
            )
        self.classes_ = np.array([0, 1])
        self.weight_ = 1.0 if self.strategy == "plain" else self._weight(labels)
        model = clone(self.model)
        if self.strategy == "weights":
            _set_class_weight(model, {0: 1.0, 1: self.weight_})
        elif self.strategy == "smote":
            X, labels = self._with_invented_frauds(X, labels)
        elif self.strategy != "plain":
            sampler = RandomOverSampler if self.strategy == "oversample" else RandomUnderSampler
            resample = sampler(sampling_strategy=self.ratio, random_state=self.seed)
            X, labels = resample.fit_resample(X, labels)
        self.rows_ = len(labels)
        self.model_ = model.fit(X, labels)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Probabilities (rows × 2) of legitimate and fraud."""
        check_is_fitted(self, "model_")
        probabilities: NDArray[Any] = self.model_.predict_proba(X)
        if not self.corrected:
            return probabilities
        fraud = undo_weight(probabilities[:, 1], self.weight_)
        return np.column_stack([1 - fraud, fraud])

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """1 where the probability of fraud exceeds one half."""
        labels: NDArray[np.int64] = (self.predict_proba(X)[:, 1] > 0.5).astype(np.int64)
        return labels

    def _weight(self, labels: NDArray[np.int64]) -> float:
        """The odds of fraud asked for, over the odds there are."""
        frauds = int(labels.sum())
        weight = self.ratio * (len(labels) - frauds) / frauds
        if not (np.isfinite(weight) and weight >= 1):
            raise ImbalanceError(
                f"a ratio of {self.ratio:g} frauds for each legitimate row leaves nothing to "
                f"balance; there are {frauds} in {len(labels)} rows"
            )
        return weight

    def _with_invented_frauds(
        self, X: ArrayLike, labels: NDArray[np.int64]
    ) -> tuple[ArrayLike, NDArray[np.int64]]:
        frauds = int(labels.sum())
        if frauds <= _NEIGHBOURS:
            raise ImbalanceError(
                f"SMOTE looks for {_NEIGHBOURS} neighbours of each fraud; there are {frauds} frauds"
            )
        table = X if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X))
        unknown = [name for name in self.categorical if name not in table.columns]
        if unknown:
            raise ImbalanceError(f"no column is called {', '.join(map(str, unknown))}")
        fixed = table.columns.isin(list(self.categorical))
        values = table.to_numpy(dtype=np.float64)
        # Neighbours are near in units of each column's spread, as they would be after scaling;
        # the model gets the columns' own units back.
        spread = values.std(axis=0)
        spread[(spread == 0) | fixed] = 1.0
        settings = {"sampling_strategy": self.ratio, "random_state": self.seed}
        settings["k_neighbors"] = _NEIGHBOURS
        sampler = (
            SMOTENC(categorical_features=np.flatnonzero(fixed).tolist(), **settings)
            if fixed.any()
            else SMOTE(**settings)
        )
        resampled, all_labels = sampler.fit_resample(values / spread, labels)
        invented = resampled[len(values) :] * spread
        rows = np.concatenate([values, invented])
        if isinstance(X, pd.DataFrame):
            return pd.DataFrame(rows, columns=table.columns), all_labels
        return rows, all_labels


def _set_class_weight(model: Any, weights: dict[int, float]) -> None:
    name = f"{model.steps[-1][0]}__class_weight" if isinstance(model, Pipeline) else "class_weight"
    if name not in model.get_params():
        raise ImbalanceError(f"{type(model).__name__} has no {name}, so it cannot be weighted")
    model.set_params(**{name: weights})
