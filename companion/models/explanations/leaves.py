"""A tree ensemble as what Shapley values are made of: its leaves, each a box with a value.

A row reaches a leaf when every feature on the way lies within that leaf's bounds (lo, hi]. Which
splits lead there no longer matters: only the distinct features on the way do, with their bounds
and the share of the training rows that passed all splits on that feature (Lundberg et al., *From
local explanations to global understanding with explainable AI for trees*, 2020, call it the weight
of a path).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier

from companion.models.explanations.compiled import compiled
from companion.models.explanations.errors import UnsupportedModelError
from companion.models.explanations.explanation import Floats

FORESTS = (RandomForestClassifier, ExtraTreesClassifier, DecisionTreeClassifier)
BOOSTING = (HistGradientBoostingClassifier, GradientBoostingClassifier)

_MOST_DISTINCT = 62
"""Features on one way: which of them a row meets is kept as the bits of one whole number."""


class Boxes(NamedTuple):
    """Leaf `i` is bounded by the entries `start[i]` to `start[i + 1]` of the arrays after `value`.

    There is one entry for each distinct feature on its way.
    """

    start: NDArray[np.int64]  # leaves + 1
    value: Floats  # leaves
    feature: NDArray[np.int64]
    lo: Floats
    hi: Floats
    passes_missing: NDArray[np.bool_]
    cover: Floats  # share of the training rows that passed the splits on this feature


@dataclass(frozen=True)
class Leaves:
    """All leaves of an ensemble whose score is `offset` + the values of the leaves reached.

    A forest's score is the probability of one class, that of boosting the log-odds of the second.
    With `single_precision` the model rounds its input to float32 before it compares.
    """

    boxes: Boxes
    offset: float
    single_precision: bool


class _Tree(NamedTuple):
    left: NDArray[np.int64]  # -1 in a leaf
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: Floats
    missing_left: NDArray[np.bool_]
    weight: Floats
    value: Floats


def leaves_of(model: Any, column: int) -> Leaves:
    """The leaves of a fitted forest, tree or boosting; `column` is the class, for a forest.

    Raises `UnsupportedModelError` for categorical splits, for more than two classes of boosting,
    for boosting that starts from another model, and for ways that look at over 62 features.
    """
    parts = [_flatten(tree, model.n_features_in_) for tree in _trees(model, column)]
    counts, *entries = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if counts.max() > _MOST_DISTINCT:
        raise UnsupportedModelError(
            model, f"a way to a leaf looks at more than {_MOST_DISTINCT} features"
        )
    return Leaves(
        boxes=Boxes(np.concatenate([[0], np.cumsum(counts)]), *entries),
        offset=_start(model) if isinstance(model, BOOSTING) else 0.0,
        single_precision=not isinstance(model, HistGradientBoostingClassifier),
    )


def _trees(model: Any, column: int) -> Iterator[_Tree]:
    if isinstance(model, HistGradientBoostingClassifier):
        if len(model.classes_) != 2:
            raise UnsupportedModelError(model, "boosting of more than two classes")
        yield from (_of_histogram(model, stage[0].nodes) for stage in model._predictors)
    elif isinstance(model, GradientBoostingClassifier):
        if len(model.classes_) != 2:
            raise UnsupportedModelError(model, "boosting of more than two classes")
        for (tree,) in model.estimators_:
            values = tree.tree_.value[:, 0, 0] * model.learning_rate
            yield _of_scikit(tree.tree_, values)
    else:
        single = isinstance(model, DecisionTreeClassifier)
        members = [model] if single else model.estimators_
        for tree in members:
            votes = tree.tree_.value[:, 0, :]
            share = votes[:, column] / votes.sum(axis=1)
            yield _of_scikit(tree.tree_, share / len(members))


def _of_scikit(tree: Any, value: Floats) -> _Tree:
    return _Tree(
        left=tree.children_left.astype("int64"),
        right=tree.children_right.astype("int64"),
        feature=tree.feature.astype("int64"),
        threshold=tree.threshold.astype("float64"),
        missing_left=tree.missing_go_to_left.astype("bool"),
        weight=tree.weighted_n_node_samples.astype("float64"),
        value=value.astype("float64"),
    )


def _of_histogram(model: Any, nodes: Any) -> _Tree:
    if nodes["is_categorical"].any():
        raise UnsupportedModelError(model, "it splits by category; encode categories as numbers")
    leaf = nodes["is_leaf"].astype("bool")
    return _Tree(
        left=np.where(leaf, -1, nodes["left"].astype("int64")),
        right=np.where(leaf, -1, nodes["right"].astype("int64")),
        feature=nodes["feature_idx"].astype("int64"),
        threshold=nodes["num_threshold"].astype("float64"),
        missing_left=nodes["missing_go_to_left"].astype("bool"),
        weight=nodes["count"].astype("float64"),
        value=nodes["value"].astype("float64"),
    )


def _start(model: Any) -> float:
    """The log-odds from which boosting starts: those of the training data, or 0."""
    if isinstance(model, HistGradientBoostingClassifier):
        return float(np.ravel(model._baseline_prediction)[0])
    if isinstance(model.init_, DummyClassifier):
        return float(logit(model.init_.class_prior_[1]))
    if model.init_ == "zero":
        return 0.0
    raise UnsupportedModelError(model, "it starts from another model (init=)")


@compiled
def _flatten(tree: _Tree, n_features: int) -> tuple[Any, ...]:
    """The leaves of one tree: entries per leaf, values, then the entries of all leaves in a row."""
    left, right, weight = tree.left, tree.right, tree.weight
    nodes = len(left)
    parent = np.full(nodes, -1, dtype=np.int64)
    n_leaves = 0
    for node in range(nodes):
        if left[node] < 0:
            n_leaves += 1
        else:
            parent[left[node]] = node
            parent[right[node]] = node

    counts = np.zeros(n_leaves, dtype=np.int64)
    values = np.zeros(n_leaves)
    size = 0
    for node in range(nodes):
        if left[node] < 0:
            depth, above = 0, parent[node]
            while above >= 0:
                depth, above = depth + 1, parent[above]
            size += min(depth, n_features)
    features = np.zeros(size, dtype=np.int64)
    lo = np.full(size, -np.inf)
    hi = np.full(size, np.inf)
    passes = np.ones(size, dtype=np.bool_)
    cover = np.ones(size)

    place = np.full(n_features, -1, dtype=np.int64)  # of a feature among the leaf's entries
    leaf, end = 0, 0
    for node in range(nodes):
        if left[node] >= 0:
            continue
        begin, child, above = end, node, parent[node]
        while above >= 0:
            entry = place[tree.feature[above]]
            if entry < begin:
                entry = place[tree.feature[above]] = end
                features[entry] = tree.feature[above]
                end += 1
            went_left = left[above] == child
            if went_left:
                hi[entry] = min(hi[entry], tree.threshold[above])
            else:
                lo[entry] = max(lo[entry], tree.threshold[above])
            passes[entry] = passes[entry] and tree.missing_left[above] == went_left
            cover[entry] *= weight[child] / weight[above]
            child, above = above, parent[above]
        counts[leaf], values[leaf] = end - begin, tree.value[node]
        leaf += 1
    return (
        counts,
        values,
        features[:end],
        lo[:end],
        hi[:end],
        passes[:end],
        cover[:end],
    )
