"""What a trial is worth: average precision on later transactions, told stage by stage.

The measure is average precision, since under accuracy nearly every setting ties at the share of the
legitimate. The rows it is measured on come *after* those of the training, with the label delay
between them, and the test rows that come after both are never touched.

A model is trained in stages (epochs of a network, trees of a forest or of boosting), each as long
as all before it together, and its value after each is reported, so that a pruner can stop what
trails behind: successive halving (Jamieson and Talwalkar, AISTATS 2016) without waiting for the
others (Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020). A trial
that runs to its last stage has trained exactly the model that `build_model` makes again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import optuna
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from sklearn.base import BaseEstimator
from sklearn.metrics import average_precision_score
from skorch.callbacks import Callback

from companion.features import feature_matrix
from companion.models.families import UnknownFamilyError, make_boosting, make_forest
from companion.models.labels import LabelError, as_labels
from companion.models.network import make_net, single_threaded
from companion.models.splits import split_by_time
from companion.models.tuning.spaces import space_of, suggest

REDUCTION = 2
"""Of the trials that reach a stage, about one in so many goes on to the next."""


@dataclass(frozen=True)
class Stages:
    """At how much training, counted in `unit`, a trial is judged; the last is the whole of it."""

    unit: str
    judged_at: tuple[int, ...]

    @property
    def full(self) -> int:
        """What an unpruned trial trains."""
        return self.judged_at[-1]

    def pruner(self) -> BasePruner:
        """Successive halving at these stages."""
        return SuccessiveHalvingPruner(min_resource=self.judged_at[0], reduction_factor=REDUCTION)


TREES = Stages("trees", (40, 80, 160))
STAGES: Mapping[str, Stages] = {
    "forest": TREES,
    "boosting": TREES,
    "net": Stages("epochs", (4, 8, 16)),
}


@dataclass(frozen=True, eq=False)
class TuningData:
    """What models are trained on and what they are judged on: features (rows × features), labels.

    The validation rows come later than the training rows. Raises `ValueError` where rows and labels
    differ in number or the parts in columns, `LabelError` for labels other than 0 and 1 or for a
    part with one class only.
    """

    X_train: pd.DataFrame
    y_train: ArrayLike
    X_validation: pd.DataFrame
    y_validation: ArrayLike

    def __post_init__(self) -> None:
        for part, X, y in (
            ("train", self.X_train, self.y_train),
            ("validation", self.X_validation, self.y_validation),
        ):
            if len(X) != len(np.asarray(y)):
                raise ValueError(f"{part}: {len(X)} rows of features, {len(np.asarray(y))} labels")
            try:
                object.__setattr__(self, f"y_{part}", as_labels(y))
            except LabelError as error:
                error.add_note(f"in the {part} part")
                raise
        if list(self.X_train.columns) != list(self.X_validation.columns):
            raise ValueError("the training and the validation part have different columns")

    @classmethod
    def from_transactions(
        cls,
        transactions: pd.DataFrame,
        *,
        test_share: float = 0.3,
        validation_share: float = 0.2,
        label_delay_days: float = 7.0,
    ) -> Self:
        """Split `transactions` by time, leave the test rows alone, and compute the features.

        Raises what `split_by_time` and `feature_matrix` raise.
        """
        split = split_by_time(
            transactions,
            test_share=test_share,
            validation_share=validation_share,
            label_delay_days=label_delay_days,
        )
        X, y = feature_matrix(transactions)
        return cls(
            X.iloc[split.train],
            y.iloc[split.train],
            X.iloc[split.validation],
            y.iloc[split.validation],
        )

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with any value, label, column or row."""
        digest = hashlib.sha256("\n".join(map(str, self.X_train.columns)).encode())
        for X, y in ((self.X_train, self.y_train), (self.X_validation, self.y_validation)):
            digest.update(np.ascontiguousarray(X.to_numpy(dtype=np.float64)).tobytes())
            digest.update(np.asarray(y).tobytes())
        return digest.hexdigest()[:16]


def build_model(
    family: str, parameters: Mapping[str, Any], *, seed: int, training: int | None = None
) -> BaseEstimator:
    """The untrained model of `family` with `parameters` as a trial names them.

    `training` counts trees or epochs; None is the full training. Raises `UnknownFamilyError`.
    """
    if family not in STAGES:
        raise UnknownFamilyError(family)
    training = training or STAGES[family].full
    if family == "forest":
        return make_forest(seed=seed, trees=training, **parameters)
    if family == "boosting":
        return make_boosting(seed=seed, rounds=training, **parameters)
    net = make_net(
        seed=seed, lr=parameters["lr"], hidden=(int(parameters["hidden"]),), epochs=training
    )
    return net.set_params(net__optimizer__weight_decay=parameters["weight_decay"])


class Objective:
    """The average precision of what a trial suggests, from 0 to 1; more is better.

    Raises `optuna.TrialPruned` where the study's pruner says so, and where training diverged.
    """

    def __init__(self, family: str, data: TuningData, *, seed: int) -> None:
        self.space = space_of(family)
        self.family, self.data, self.seed = family, data, seed
        self.stages = STAGES[family]

    def __call__(self, trial: optuna.Trial) -> float:
        parameters = suggest(trial, self.space)
        if self.family == "net":
            return self._train_net(trial, parameters)
        return self._grow_trees(trial, parameters)

    def _grow_trees(self, trial: optuna.Trial, parameters: Mapping[str, Any]) -> float:
        model = build_model(self.family, parameters, seed=self.seed)
        trees = model[-1].set_params(warm_start=True)
        count = "n_estimators" if self.family == "forest" else "max_iter"
        value = 0.0
        for stage in self.stages.judged_at:
            trees.set_params(**{count: stage})
            model.fit(self.data.X_train, self.data.y_train)
            scores = model.predict_proba(self.data.X_validation)[:, 1]
            value = self._judge(trial, stage, scores)
        return value

    def _train_net(self, trial: optuna.Trial, parameters: Mapping[str, Any]) -> float:
        model = build_model(self.family, parameters, seed=self.seed)
        prepare, net = model[:-1], model[-1]
        X_train = prepare.fit_transform(self.data.X_train)
        X_validation = prepare.transform(self.data.X_validation)

        def judge(epoch: int) -> float:
            # Predicting draws from the generator too, and would shuffle the next epoch otherwise.
            with torch.random.fork_rng(devices=[]):
                scores = net.predict_proba(X_validation)[:, 1]
            return self._judge(trial, epoch, scores)

        after_epoch = _AfterEpoch(judge)
        with single_threaded():
            net.set_params(callbacks=[("judge", after_epoch)]).fit(X_train, self.data.y_train)
        return after_epoch.value

    def _judge(self, trial: optuna.Trial, stage: int, scores: NDArray[np.floating[Any]]) -> float:
        if not np.isfinite(scores).all():
            raise optuna.TrialPruned(f"training diverged: scores are not finite at {stage}")
        value = float(average_precision_score(self.data.y_validation, scores))
        trial.report(value, stage)
        if stage < self.stages.full and trial.should_prune():
            raise optuna.TrialPruned(f"{value:.4f} trails behind at {stage} {self.stages.unit}")
        return value


class _AfterEpoch(Callback):  # type: ignore[misc]
    """Ask `judge` after every epoch, and remember what it said last."""

    def __init__(self, judge: Any) -> None:
        self.judge = judge
        self.value = 0.0

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.value = self.judge(len(net.history))
