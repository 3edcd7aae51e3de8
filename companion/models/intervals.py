"""How sure is a metric, and is one model really better than another?

Two models on the same rows make the same mistakes for the same reasons, so their difference is far
more certain than either number. Both methods here keep the pairs together:

- The *bootstrap* (Efron & Tibshirani, *An Introduction to the Bootstrap*, 1993) draws rows with
  replacement and works for any metric. A draw is a weight, the number of times that a row came up,
  so nothing is copied. Transactions of one customer resemble each other; with `clusters` whole
  customers are drawn, and the interval is honestly wider (Field & Welsh, 2007).
- *DeLong's* method is exact algebra for ROC-AUC: an AUC is a mean over pairs (fraud, legitimate),
  its variance follows from how much each fraud and each legitimate row contribute (DeLong, DeLong
  & Clarke-Pearson, 1988). The contributions come out of ranks, in O(n log n), by Sun & Xu, *Fast
  implementation of DeLong's algorithm*, 2014.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from companion.models.metrics import Floats, Labels, RowsMismatchError, checked

# metric(labels, probabilities, weights), rows each, such as those of companion.models.metrics
Metric = Callable[[Labels, Floats, Floats], float]


class IntervalError(ValueError):
    """No interval can be given: too few rows or clusters, or an argument out of range."""


@dataclass(frozen=True)
class Interval:
    """An `estimate` and the range that covers the truth in a share `level` of such samples."""

    estimate: float
    low: float
    high: float
    level: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Difference(Interval):
    """The metric of the `first` model minus that of the `second`, on the same rows."""

    first: float
    second: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class AucDifference(Difference):
    """A difference of two ROC-AUCs with DeLong's standard error and two-sided p-value."""

    standard_error: float
    p_value: float


def bootstrap(
    y: ArrayLike,
    probability: ArrayLike,
    *,
    metric: Metric,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
    stratified: bool = False,
    clusters: ArrayLike | None = None,
) -> Interval:
    """The interval of `metric` for one model; arguments and errors as in `paired_bootstrap`."""
    labels, p = checked(y, probability)
    draws = _draws(labels, seed, resamples, level, stratified, clusters)
    drawn = np.array([metric(labels, p, weight) for weight in draws])
    low, high = _percentiles(drawn, level)
    return Interval(metric(labels, p, np.ones(len(labels))), low, high, level)


def paired_bootstrap(
    y: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    metric: Metric,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
    stratified: bool = False,
    clusters: ArrayLike | None = None,
) -> Difference:
    """The percentile interval of metric(first) - metric(second) over labels `y` (rows).

    `metric(labels, probabilities, weights)` is any function of the rows and how often each was
    drawn; other columns may come in through a closure, since rows keep their places. With
    `stratified` the number of frauds is the same in every draw; with `clusters` (rows, such as
    customer ids) whole clusters are drawn. A draw of one class only is drawn again.

    Raises what `companion.models.metrics` raises, and `IntervalError` for both ways at once,
    fewer than two clusters, missing clusters, fewer than ten resamples or a level outside 0–1.
    """
    labels, p_first = checked(y, first)
    _, p_second = checked(y, second)
    draws = _draws(labels, seed, resamples, level, stratified, clusters)
    drawn = np.array([metric(labels, p_first, w) - metric(labels, p_second, w) for w in draws])
    low, high = _percentiles(drawn, level)
    once = np.ones(len(labels))
    on_first, on_second = metric(labels, p_first, once), metric(labels, p_second, once)
    return Difference(on_first - on_second, low, high, level, on_first, on_second)


def delong_interval(y: ArrayLike, probability: ArrayLike, *, level: float = 0.95) -> Interval:
    """ROC-AUC with DeLong's normal interval, cut to 0–1; errors as in `delong_test`."""
    _check_level(level)
    labels, p = checked(y, probability)
    (auc,), ((variance,),) = _delong(labels, p[None, :])
    reach = _z(level) * float(np.sqrt(variance))
    return Interval(float(auc), max(0.0, float(auc) - reach), min(1.0, float(auc) + reach), level)


def delong_test(
    y: ArrayLike, first: ArrayLike, second: ArrayLike, *, level: float = 0.95
) -> AucDifference:
    """Do two models on the same rows differ in ROC-AUC? DeLong's paired test.

    Where neither model nor row leaves any variance, the p-value is 1 for equal AUCs, else 0.
    Raises what `companion.models.metrics` raises, and `IntervalError` for fewer than two rows of a
    class or a level outside 0–1.
    """
    _check_level(level)
    labels, p_first = checked(y, first)
    _, p_second = checked(y, second)
    aucs, covariance = _delong(labels, np.stack([p_first, p_second]))
    difference = float(aucs[0] - aucs[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    error = float(np.sqrt(max(variance, 0.0)))
    if error > 1e-12:
        p_value = 2 * NormalDist().cdf(-abs(difference) / error)
    else:
        p_value = float(abs(difference) < 1e-12)
    reach = _z(level) * error
    return AucDifference(
        estimate=difference,
        low=difference - reach,
        high=difference + reach,
        level=level,
        first=float(aucs[0]),
        second=float(aucs[1]),
        standard_error=error,
        p_value=p_value,
    )


def _delong(labels: Labels, p: Floats) -> tuple[Floats, Floats]:
    """ROC-AUCs (models) of `p` (models × rows) and their covariance (models × models)."""
    frauds, others = p[:, labels == 1], p[:, labels == 0]
    m, n = frauds.shape[1], others.shape[1]
    if min(m, n) < 2:
        raise IntervalError(f"{m} frauds and {n} legitimate rows; two of each are needed")
    everybody = np.concatenate([frauds, others], axis=1)
    # A row's rank among all, less its rank within its class, counts the other class below it.
    among_all = np.stack([_midranks(row) for row in everybody])
    among_frauds = np.stack([_midranks(row) for row in frauds])
    among_others = np.stack([_midranks(row) for row in others])
    share_below = (among_all[:, :m] - among_frauds) / n  # of legitimate rows, for each fraud
    share_above = 1 - (among_all[:, m:] - among_others) / m  # of frauds, for each legitimate row
    aucs: Floats = share_below.mean(axis=1)
    covariance: Floats = (
        np.atleast_2d(np.cov(share_below)) / m + np.atleast_2d(np.cov(share_above)) / n
    )
    return aucs, covariance


def _midranks(values: Floats) -> Floats:
    """Ranks from 1 up; ties share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def _draws(
    labels: Labels,
    seed: int,
    resamples: int,
    level: float,
    stratified: bool,
    clusters: ArrayLike | None,
) -> Iterator[Floats]:
    """How often each row was drawn, once for each resample; arguments are checked at once."""
    _check_level(level)
    if resamples < 10:
        raise IntervalError(f"resamples must be 10 or more; got {resamples}")
    if stratified and clusters is not None:
        raise IntervalError("draw either within classes or whole clusters, not both")
    if clusters is not None:
        codes = _cluster_codes(labels, clusters)
    elif stratified:
        codes = labels
    else:
        codes = np.arange(len(labels))
    rng = np.random.default_rng(seed)
    draw = _draw_within_classes if stratified else _draw_clusters
    is_fraud = labels.astype(np.float64)  # once: a product of floats and integers is slow
    return (_with_both_classes(is_fraud, codes, draw, rng) for _ in range(resamples))


def _with_both_classes(
    is_fraud: Floats,
    codes: NDArray[np.int64],
    draw: Callable[[NDArray[np.int64], Generator], Floats],
    rng: Generator,
) -> Floats:
    while True:
        weight = draw(codes, rng)
        if 0 < weight @ is_fraud < weight.sum():
            return weight


def _draw_clusters(codes: NDArray[np.int64], rng: Generator) -> Floats:
    count = int(codes.max()) + 1
    times = np.bincount(rng.integers(count, size=count), minlength=count)
    weight: Floats = times[codes].astype(np.float64)
    return weight


def _draw_within_classes(labels: NDArray[np.int64], rng: Generator) -> Floats:
    weight = np.empty(len(labels))
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        weight[rows] = np.bincount(rng.integers(len(rows), size=len(rows)), minlength=len(rows))
    return weight


def _cluster_codes(labels: Labels, clusters: ArrayLike) -> NDArray[np.int64]:
    codes, names = pd.factorize(np.asarray(clusters))
    if len(codes) != len(labels):
        raise RowsMismatchError("clusters", len(labels), len(codes))
    if (codes < 0).any():
        raise IntervalError(f"{int((codes < 0).sum())} rows have no cluster")
    if len(names) < 2:
        raise IntervalError("all rows are of one cluster; nothing can be drawn")
    return codes.astype(np.int64)


def _percentiles(drawn: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise IntervalError(f"level must lie between 0 and 1; got {level!r}")


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
