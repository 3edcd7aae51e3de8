"""The three ways to contributions: through leaves, through weights, through coalitions.

Each is prepared once for a model and then called with rows (rows × features, in the features that
go into the pipeline); it gives contributions, their base, and the model's score in the same unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from companion.models.explanations import preprocessing
from companion.models.explanations.coalitions import coalition_values
from companion.models.explanations.explanation import Floats, Unit
from companion.models.explanations.leaves import Leaves
from companion.models.explanations.probabilities import score_function
from companion.models.explanations.tree_values import background_values, path_values, scores

BACKGROUND_ROWS = 50
"""Coalitions compare with at most so many rows of the background, evenly spaced."""


class Parts(NamedTuple):
    """Contributions (rows × features), their base, and the scores (rows) that they make up."""

    values: Floats
    base: float
    output: Floats


class Method(Protocol):
    def __call__(self, data: Floats) -> Parts: ...


@dataclass(frozen=True)
class ByLeaves:
    """Trees. `sign` is -1 where the leaves speak of the other class in log-odds."""

    leaves: Leaves
    steps: Any
    background: Floats | None
    sign: float = 1.0

    def __call__(self, data: Floats) -> Parts:
        source = _sources(self.steps, data, self.background)
        if source is not None:
            preprocessing.refuse_shared(source)
        seen = _seen(self.steps, data)
        if self.background is None:
            values, base = path_values(self.leaves, seen)
        else:
            others = _seen(self.steps, self.background)
            values, base = background_values(self.leaves, seen, others)
        output = self.sign * scores(self.leaves, seen)
        return Parts(_named(self.sign * values, source, data), self.sign * base, output)


@dataclass(frozen=True)
class ByWeights:
    """A linear model in log-odds: weight × (value - what is usual in the background).

    What is left out of a linear model leaves the others as they are, so this is exact, whatever
    the correlation of the features (Štrumbelj and Kononenko, 2010).
    """

    weights: Floats
    intercept: float
    steps: Any
    background: Floats

    def __call__(self, data: Floats) -> Parts:
        source = _sources(self.steps, data, self.background)
        seen = _seen(self.steps, data)
        usual = _seen(self.steps, self.background).mean(axis=0)
        values = _named((seen - usual) * self.weights, source, data)
        base = float(self.intercept + usual @ self.weights)
        return Parts(values, base, self.intercept + seen @ self.weights)


@dataclass(frozen=True)
class ByCoalitions:
    """Anything with `predict_proba`, pipelines of any kind included, in either unit."""

    model: Any
    column: int
    unit: Unit
    background: Floats

    def __call__(self, data: Floats) -> Parts:
        score = score_function(self.model, self.column, self.unit)
        step = -(-len(self.background) // BACKGROUND_ROWS)
        values, base = coalition_values(score, data, self.background[::step])
        return Parts(values, base, score(data))


def _sources(steps: Any, data: Floats, background: Floats | None) -> Any:
    if steps is None:
        return None
    rows = data if background is None else np.concatenate([background, data])
    return preprocessing.sources(steps, rows)


def _seen(steps: Any, array: Floats) -> Floats:
    return array if steps is None else preprocessing.transformed(steps, array)


def _named(values: Floats, source: Any, data: Floats) -> Floats:
    return values if source is None else preprocessing.in_features(values, source, data.shape[1])
