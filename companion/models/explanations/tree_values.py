"""Exact Shapley values of tree ensembles, leaf by leaf, for many rows at once.

A leaf is a small game of its own: its value is won when all its k features are within bounds. How
it is divided depends on nothing but *which* of them are within bounds for the row, a pattern of k
bits; so of the 2^k divisions only those that occur are worked out, once, and rows look theirs up
(Yang, *Fast TreeSHAP*, 2021, tabulates all of them; Nadel and Wettenstein, *Woodelf*, 2025, brought
backgrounds into the same form). A row then costs k comparisons and k additions per leaf, however
large the background is.

What a feature is when it is "not there" is one of two things:

- without a background, the share of the training rows that passed its splits ("path-dependent");
- with a background, its value in each background row in turn ("interventional").

In the first case the sum over subsets is an integral over t in [0, 1] of a polynomial whose degree
is below k, which Gauss–Legendre quadrature with (k + 1) / 2 points gives exactly: all terms
positive, so nothing cancels. In the second it has a closed form: the value is won if the features
that only the row meets have joined, and those that only the background row meets have not.
"""

from __future__ import annotations

from math import factorial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from companion.models.explanations.compiled import compiled
from companion.models.explanations.explanation import Floats
from companion.models.explanations.leaves import Boxes, Leaves

Ints = NDArray[np.int64]

_BLOCK = 4096  # rows whose features fit the cache of one core
_TABLED = 12  # bits; a pattern of more is worked out for each row


class _Rules(NamedTuple):
    """What dividing a value needs besides the leaf; one of the two parts is empty."""

    points: Floats
    weights: Floats
    games: Floats


def path_values(leaves: Leaves, X: Floats) -> tuple[Floats, float]:
    """Contributions (rows × features) and base; absent features follow the training rows."""
    boxes = leaves.boxes
    ways = np.diff(boxes.start)
    rules = _Rules(*_quadrature(int(ways.max())), _games(0))
    columns = _columns(leaves, X)
    values = np.zeros_like(columns)
    _add_values(boxes, columns, np.zeros((len(columns), 0)), rules, values)
    reached = np.ones(len(ways))
    np.multiply.at(reached, np.repeat(np.arange(len(ways)), ways), boxes.cover)
    return np.ascontiguousarray(values.T), leaves.offset + float(boxes.value @ reached)


def background_values(leaves: Leaves, X: Floats, background: Floats) -> tuple[Floats, float]:
    """Contributions (rows × features) and base; absent features take each background row's value.

    The base is the mean score of the background (rows × features), of which all rows count.
    """
    rules = _Rules(*_quadrature(0), _games(int(np.diff(leaves.boxes.start).max())))
    columns = _columns(leaves, X)
    values = np.zeros_like(columns)
    _add_values(leaves.boxes, columns, _columns(leaves, background), rules, values)
    return np.ascontiguousarray(values.T), float(scores(leaves, background).mean())


def scores(leaves: Leaves, X: Floats) -> Floats:
    """What the ensemble says about each row of `X`: offset + the values of the leaves reached."""
    total = np.full(len(X), leaves.offset)
    _add_reached(leaves.boxes, _columns(leaves, X), total)
    return total


def _columns(leaves: Leaves, X: Floats) -> Floats:
    rounded = X.astype("float32") if leaves.single_precision else X
    return np.ascontiguousarray(rounded.T, dtype="float64")


def _quadrature(degree: int) -> tuple[Floats, Floats]:
    """Points and weights on [0, 1], exact for polynomials up to `degree`."""
    points, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    return (points + 1) / 2, weights / 2


def _games(most: int) -> Floats:
    """[a, b] → (a - 1)! b! / (a + b)!: what each of a players who must join gets where b must not.

    [b, a] is what, with a minus sign, each of the b gets.
    """
    table = np.zeros((most + 1, most + 1))
    for a in range(1, most + 1):
        for b in range(most + 1 - a):
            table[a, b] = factorial(a - 1) * factorial(b) / factorial(a + b)
    return table


@compiled
def _find_patterns(boxes: Boxes, leaf: int, columns: Floats, first: int, out: Ints) -> None:
    """Bit i of out[r]: row first + r is within the leaf's bounds on its i-th feature."""
    out[:] = 0
    for entry in range(boxes.start[leaf], boxes.start[leaf + 1]):
        bit = np.int64(1) << (entry - boxes.start[leaf])
        lo, hi, missing = boxes.lo[entry], boxes.hi[entry], boxes.passes_missing[entry]
        column = columns[boxes.feature[entry]]
        for r in range(len(out)):
            x = column[first + r]
            within = (x > lo and x <= hi) or (missing and x != x)
            out[r] |= bit if within else np.int64(0)


@compiled
def _divide_by_cover(
    pattern: int, value: float, cover: Floats, rules: _Rules, shares: Floats
) -> None:
    """Divide a leaf's value among its k features; absent ones are met with the odds of `cover`.

    Features within bounds are met when present, and with their cover when absent; the others are
    met only when absent.
    """
    k = len(cover)
    unmet = 1.0
    n_unmet = 0
    for i in range(k):
        if not (pattern >> i) & 1:
            unmet *= cover[i]
            n_unmet += 1
        shares[i] = 0.0
    lost = 0.0
    for q in range(len(rules.points)):
        t = rules.points[q]
        joint = rules.weights[q] * value * unmet
        for i in range(k):
            if (pattern >> i) & 1:
                joint *= t + cover[i] * (1.0 - t)
        if n_unmet > 0:
            lost += joint * (1.0 - t) ** (n_unmet - 1)
        joint *= (1.0 - t) ** n_unmet
        for i in range(k):
            if (pattern >> i) & 1:
                shares[i] += joint * (1.0 - cover[i]) / (t + cover[i] * (1.0 - t))
    for i in range(k):
        if not (pattern >> i) & 1:
            shares[i] = -lost


@compiled
def _divide_by_background(
    pattern: int, value: float, others: Ints, counts: Floats, rules: _Rules, shares: Floats
) -> None:
    """Divide a leaf's value among its k features, on average over background patterns."""
    k = len(shares)
    shares[:] = 0.0
    everything = (np.int64(1) << k) - 1
    for o in range(len(others)):
        other = others[o]
        if (pattern | other) != everything:
            continue  # a feature that neither row meets: the value cannot be won
        ours, theirs = pattern & ~other, other & ~pattern
        a, b = 0, 0
        for i in range(k):
            a += (ours >> i) & 1
            b += (theirs >> i) & 1
        weight = value * counts[o]
        for i in range(k):
            if (ours >> i) & 1:
                shares[i] += weight * rules.games[a, b]
            elif (theirs >> i) & 1:
                shares[i] -= weight * rules.games[b, a]


@compiled
def _distinct(patterns: Ints) -> tuple[Ints, Floats]:
    """The distinct patterns and the share of each."""
    patterns.sort()
    seen = np.empty_like(patterns)
    shares = np.zeros(len(patterns))
    n = 0
    for p in range(len(patterns)):
        if p == 0 or patterns[p] != patterns[p - 1]:
            seen[n] = patterns[p]
            n += 1
        shares[n - 1] += 1.0 / len(patterns)
    return seen[:n], shares[:n]


@compiled
def _add_values(
    boxes: Boxes, columns: Floats, background: Floats, rules: _Rules, out: Floats
) -> None:
    """Add the contributions of all leaves to `out` (features × rows, as are the others).

    An empty background means that absent features follow the leaf's cover.
    """
    n_rows = columns.shape[1]
    patterns = np.empty(_BLOCK, dtype=np.int64)
    others = np.empty(background.shape[1], dtype=np.int64)
    table = np.empty((_TABLED, 1 << _TABLED))
    tabled_for = np.full(1 << _TABLED, -1, dtype=np.int64)
    for leaf in range(len(boxes.value)):
        begin, end = boxes.start[leaf], boxes.start[leaf + 1]
        k = end - begin
        shares = np.empty(k)
        _find_patterns(boxes, leaf, background, 0, others)
        distinct, counts = _distinct(others)
        for first in range(0, n_rows, _BLOCK):
            here = patterns[: min(_BLOCK, n_rows - first)]
            _find_patterns(boxes, leaf, columns, first, here)
            for r in range(len(here)):
                pattern = here[r]
                if k <= _TABLED and tabled_for[pattern] == leaf:
                    continue
                if len(others) > 0:
                    _divide_by_background(
                        pattern, boxes.value[leaf], distinct, counts, rules, shares
                    )
                else:
                    _divide_by_cover(
                        pattern, boxes.value[leaf], boxes.cover[begin:end], rules, shares
                    )
                if k <= _TABLED:
                    table[:k, pattern] = shares
                    tabled_for[pattern] = leaf
                else:
                    for i in range(k):
                        out[boxes.feature[begin + i], first + r] += shares[i]
            if k <= _TABLED:
                for i in range(k):
                    column, share = out[boxes.feature[begin + i]], table[i]
                    for r in range(len(here)):
                        column[first + r] += share[here[r]]


@compiled
def _add_reached(boxes: Boxes, columns: Floats, total: Floats) -> None:
    """Add to `total` (rows) the value of each leaf whose bounds the row meets."""
    patterns = np.empty(_BLOCK, dtype=np.int64)
    for leaf in range(len(boxes.value)):
        everything = (np.int64(1) << (boxes.start[leaf + 1] - boxes.start[leaf])) - 1
        for first in range(0, len(total), _BLOCK):
            here = patterns[: min(_BLOCK, len(total) - first)]
            _find_patterns(boxes, leaf, columns, first, here)
            for r in range(len(here)):
                if here[r] == everything:
                    total[first + r] += boxes.value[leaf]
