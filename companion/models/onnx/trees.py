"""Tree ensembles of scikit-learn as one `TreeEnsemble` node, in float64.

scikit-learn keeps thresholds and leaves in float64. A forest rounds its *input* to float32 first,
gradient boosting does not, and both then compare in float64. The older `TreeEnsembleClassifier`
in float32 has to round the thresholds too, and a threshold rounded upwards sends the row that lies
between the two to the other side; its sums over the leaves are in float32 as well. `TreeEnsemble`
(ai.onnx.ml, opset 5) holds both in float64, so nothing is rounded at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from companion.models.onnx.errors import UnsupportedModelError
from companion.models.onnx.graph import TREES, Graph, Value

_AVERAGE, _SUM = 0, 1


@dataclass(frozen=True)
class Tree:
    """One tree, an array per property with an entry per node; row 0 is the root.

    A row goes left where `feature` ≤ `threshold`. `left` and `right` are node numbers, `leaf` marks
    the nodes that have none but have a `value`. Where a missing value would go is left out: the
    exported model is given none (`OnnxModel` refuses them), and asking at every node costs time.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.bool_]
    value: NDArray[np.float64]


def forest_trees(forest: Any) -> list[Tree]:
    """The trees of a fitted forest of two classes; the value of a leaf is its share of fraud."""
    return [_of_forest(estimator.tree_) for estimator in forest.estimators_]


def boosted_trees(boosting: Any) -> list[Tree]:
    """The trees of a fitted `HistGradientBoostingClassifier`; values are in log-odds.

    Raises `UnsupportedModelError` for splits on categories.
    """
    nodes = [predictor.nodes for (predictor,) in boosting._predictors]
    if any(records["is_categorical"].any() for records in nodes):
        raise UnsupportedModelError(
            type(boosting).__name__, "it splits on categories; encode them as numbers before it"
        )
    return [_of_boosting(records) for records in nodes]


def add_average(graph: Graph, value: Value, trees: Sequence[Tree]) -> str:
    """The average of the trees' leaves for float32 rows, as a forest takes it: rows × 1."""
    rounded = Value("float32", {"float32": graph.read(value, "float32")}, value.unscale)
    return _add(graph, rounded, trees, _AVERAGE)


def add_sum(graph: Graph, value: Value, trees: Sequence[Tree]) -> str:
    """The sum of the trees' leaves: rows × 1."""
    return _add(graph, value, trees, _SUM)


def _add(graph: Graph, value: Value, trees: Sequence[Tree], aggregate: int) -> str:
    trees = [_with_a_split(tree) for tree in trees]
    splits = [~tree.leaf for tree in trees]
    first_split = np.cumsum([0, *(int(split.sum()) for split in splits)])
    first_leaf = np.cumsum([0, *(int(tree.leaf.sum()) for tree in trees)])
    # Splits and leaves are numbered apart, each through all trees.
    numbers = [
        np.where(tree.leaf, np.cumsum(tree.leaf) - 1 + leaves, np.cumsum(split) - 1 + inner)
        for tree, split, leaves, inner in zip(trees, splits, first_leaf, first_split, strict=False)
    ]

    def each(of: str) -> NDArray[Any]:
        return np.concatenate(
            [getattr(tree, of)[split] for tree, split in zip(trees, splits, strict=True)]
        )

    def children(side: str) -> tuple[list[int], list[int]]:
        below = [getattr(tree, side)[split] for tree, split in zip(trees, splits, strict=True)]
        ids = [number[child] for number, child in zip(numbers, below, strict=True)]
        leaf = [tree.leaf[child] for tree, child in zip(trees, below, strict=True)]
        return np.concatenate(ids).tolist(), np.concatenate(leaf).astype(int).tolist()

    feature, threshold = each("feature"), each("threshold")
    graph.boundaries.append((feature, value.unscale(feature, threshold)))
    true_ids, true_leaves = children("left")
    false_ids, false_leaves = children("right")
    leaves = np.concatenate([tree.value[tree.leaf] for tree in trees])
    return graph.node(
        "TreeEnsemble",
        graph.read(value, "float64"),
        domain=TREES,
        n_targets=1,
        aggregate_function=aggregate,
        tree_roots=first_split[:-1].tolist(),
        nodes_featureids=feature.tolist(),
        nodes_splits=numpy_helper.from_array(threshold),
        nodes_modes=numpy_helper.from_array(np.zeros(len(feature), dtype=np.uint8)),  # ≤
        nodes_truenodeids=true_ids,
        nodes_trueleafs=true_leaves,
        nodes_falsenodeids=false_ids,
        nodes_falseleafs=false_leaves,
        leaf_targetids=[0] * len(leaves),
        leaf_weights=numpy_helper.from_array(leaves),
    )


def _of_forest(tree: Any) -> Tree:
    return Tree(
        feature=tree.feature.astype(np.int64),
        threshold=tree.threshold.astype(np.float64),
        left=tree.children_left.astype(np.int64),
        right=tree.children_right.astype(np.int64),
        leaf=tree.children_left < 0,
        value=tree.value[:, 0, 1].astype(np.float64),
    )


def _of_boosting(records: NDArray[Any]) -> Tree:
    return Tree(
        feature=records["feature_idx"].astype(np.int64),
        threshold=records["num_threshold"].astype(np.float64),
        left=records["left"].astype(np.int64),
        right=records["right"].astype(np.int64),
        leaf=records["is_leaf"].astype(bool),
        value=records["value"].astype(np.float64),
    )


def _with_a_split(tree: Tree) -> Tree:
    # ONNX has no tree without a split: one whose branches both end in the only leaf stands for it.
    if not tree.leaf[0]:
        return tree
    return Tree(
        feature=np.array([0, 0]),
        threshold=np.zeros(2),
        left=np.array([1, -1]),
        right=np.array([1, -1]),
        leaf=np.array([False, True]),
        value=np.array([0.0, tree.value[0]]),
    )
