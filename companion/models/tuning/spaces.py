"""Search spaces: what may vary in each family of models, between which limits, on which scale.

A range is a claim: *the best value lies inside*. Where it turns out to lie on the boundary, the
range was too narrow and the search found the end of the range rather than an optimum; `edges`
says so. What acts as a factor (a learning rate, a penalty, a size) is searched on a log scale:
every decade is equally likely, whereas on a linear scale nine draws of ten fall into the last one
(Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012, section 2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna

from companion.models.families import UnknownFamilyError

Bound = Literal["low", "high"]
ON_THE_EDGE = 0.03
"""The share of a range, on its own scale, that counts as its boundary."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `log` searches decades, `whole` integers only.

    `ends` names the bounds beyond which there is nothing (no forest uses more than all features):
    lying there is no sign of a range too narrow.

    Raises `ValueError` for an empty range, and for a log scale that touches 0.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False
    ends: frozenset[Bound] = frozenset()

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a range needs low < high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log scale begins above 0, got low={self.low}")

    def suggest(self, trial: optuna.Trial, name: str) -> float:
        """The value that `trial` is to try."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def position(self, value: float) -> float:
        """Where `value` lies, from 0 at `low` to 1 at `high`, on the range's own scale."""
        low, high, at = (
            map(math.log, (self.low, self.high, value))
            if self.log
            else (self.low, self.high, value)
        )
        return (at - low) / (high - low)

    def value_at(self, position: float) -> float:
        """The value at `position` (0 to 1): the inverse of `position`."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            value = math.exp(low + position * (high - low))
        else:
            value = self.low + position * (self.high - self.low)
        return round(value) if self.whole else value

    def edge(self, value: float) -> Bound | None:
        """The bound on which `value` lies, if it lies on one beyond which there is something."""
        position = self.position(value)
        if position <= ON_THE_EDGE and "low" not in self.ends:
            return "low"
        if position >= 1 - ON_THE_EDGE and "high" not in self.ends:
            return "high"
        return None


Space = Mapping[str, Range]
"""Ranges by the name of the parameter, in the order in which they are drawn."""


@dataclass(frozen=True)
class Edge:
    """A best `value` on the boundary `limit` of the range of `parameter`."""

    parameter: str
    value: float
    bound: Bound
    limit: float

    def __str__(self) -> str:
        end = {"low": "lower", "high": "upper"}[self.bound]
        return (
            f"best value lies on the boundary of {self.parameter}: {self.value:.4g}, at the {end} "
            f"end {self.limit:g}; widen the range and search again"
        )


FOREST: Space = {
    "min_samples_leaf": Range(1, 100, log=True, whole=True, ends=frozenset({"low"})),
    "max_features": Range(0.1, 1.0, ends=frozenset({"high"})),
    "max_samples": Range(0.02, 1.0, log=True, ends=frozenset({"high"})),
}
BOOSTING: Space = {
    "learning_rate": Range(0.005, 0.5, log=True),
    "max_leaf_nodes": Range(3, 127, log=True, whole=True),
    "min_samples_leaf": Range(2, 500, log=True, whole=True),
    "l2_regularization": Range(1e-3, 1e3, log=True),
    "max_features": Range(0.1, 1.0, ends=frozenset({"high"})),
}
NET: Space = {
    "lr": Range(1e-4, 0.3, log=True),
    "hidden": Range(4, 256, log=True, whole=True),
    "weight_decay": Range(1e-7, 1e-1, log=True),
}
SPACES: Mapping[str, Space] = {"forest": FOREST, "boosting": BOOSTING, "net": NET}


def space_of(family: str) -> Space:
    """The search space of `family`; raises `UnknownFamilyError`."""
    if family not in SPACES:
        raise UnknownFamilyError(family)
    return SPACES[family]


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """One value for every parameter of `space`, as `trial` draws them."""
    return {name: span.suggest(trial, name) for name, span in space.items()}


def edges(space: Space, parameters: Mapping[str, float]) -> tuple[Edge, ...]:
    """Which of `parameters` lie on the boundary of their range in `space`."""
    found = []
    for name, span in space.items():
        bound = span.edge(parameters[name])
        if bound is not None:
            limit = span.low if bound == "low" else span.high
            found.append(Edge(name, parameters[name], bound, limit))
    return tuple(found)
