"""The probability of fraud as a plain function of rows, as fast as the model allows.

skorch feeds a network through a data loader, row by row and 256 at a time; a hundred thousand
mixtures of two rows take fifty times as long that way as in one forward pass. So a network is
asked directly where what it does to its output is known, and through `predict_proba` where not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.special import expit, logit
from sklearn.pipeline import Pipeline
from skorch import NeuralNetClassifier

from companion.models.explanations.explanation import Floats, Unit
from companion.models.explanations.tables import as_fitted

_LEAST = 1e-12  # a probability of 0 or 1 has no finite log-odds


def fraud_probability(model: Any, array: Floats, column: int) -> Floats:
    """What `model.predict_proba` says about fraud (rows), in float64."""
    said = model.predict_proba(as_fitted(model, array))
    return np.asarray(said, dtype="float64")[:, column]


def score_function(model: Any, column: int, unit: Unit) -> Callable[[Floats], Floats]:
    """A function of rows × features that gives fraud's score (rows) in `unit`.

    Probabilities of exactly 0 and 1 count as 1e-12 from there, where log-odds are asked for.
    """
    if _is_plain_network(model):
        return _network(model, column, unit)

    def score(array: Floats) -> Floats:
        probability = fraud_probability(model, array, column)
        if unit == "probability":
            return probability
        odds: Floats = logit(np.clip(probability, _LEAST, 1 - _LEAST))
        return odds

    return score


def _is_plain_network(model: Any) -> bool:
    """A pipeline that ends in skorch's classifier of two logits, as skorch itself reads them."""
    if not isinstance(model, Pipeline) or len(model.steps) < 2:
        return False
    net = model[-1]
    return (
        isinstance(net, NeuralNetClassifier)
        and net.predict_nonlinearity == "auto"
        and isinstance(net.criterion_, torch.nn.CrossEntropyLoss)
        and len(net.classes_) == 2
    )


def _network(model: Pipeline, column: int, unit: Unit) -> Callable[[Floats], Floats]:
    steps, net = model[:-1], model[-1]

    def score(array: Floats) -> Floats:
        rows = np.asarray(steps.transform(as_fitted(steps, array)), dtype="float32")
        logits = net.evaluation_step((torch.as_tensor(rows), None)).cpu().numpy()
        odds = logits[:, column].astype("float64") - logits[:, 1 - column]
        return odds if unit == "log-odds" else np.asarray(expit(odds))

    return score
