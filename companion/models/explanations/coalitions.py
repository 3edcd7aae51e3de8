"""Exact Shapley values of any function of a row, by asking it about every coalition.

For features "absent" from a coalition the function sees the values of a background row instead;
the result is the mean over the background rows. A feature whose value is the same in both rows
changes nothing, so only the k that differ are players, and 2^k mixtures of the two rows are
enough: for twelve features of which some are flags, a few hundred rather than 4,096. Nothing is
sampled, so the same rows give the same values, to the last bit.

Sampling (Štrumbelj and Kononenko, 2010) is what remains for many features; here they are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import factorial

import numpy as np
from numpy.typing import NDArray

from companion.models.explanations.errors import InputError
from companion.models.explanations.explanation import Floats

MOST_PLAYERS = 16
_ROWS_AT_ONCE = 1 << 17  # asked of the function together


def coalition_values(
    function: Callable[[Floats], Floats], X: Floats, background: Floats
) -> tuple[Floats, float]:
    """Contributions (rows × features) to `function` and its mean over `background`.

    `function` takes rows × features and gives one number a row. It is asked about at most
    len(X) · len(background) · 2^features rows.

    Raises `InputError` where a row differs from one of the background in more than 16 features.
    """
    values = np.zeros_like(X)
    for row, x in enumerate(X):
        values[row] = _of_row(function, x, background)
    return values, float(function(background).mean())


def _of_row(function: Callable[[Floats], Floats], x: Floats, background: Floats) -> Floats:
    differs = x != background
    players = differs.sum(axis=1)
    if players.max() > MOST_PLAYERS:
        raise InputError(
            f"{players.max()} features would need {2 ** int(players.max()):,} coalitions a row; "
            f"at most {MOST_PLAYERS} are tried"
        )
    total = np.zeros_like(x)
    pending: list[tuple[NDArray[np.int64], Floats]] = []
    size = 0
    for other, differing in zip(background, differs, strict=True):
        who = np.flatnonzero(differing)
        if not who.size:
            continue
        mixtures = np.tile(other, (1 << who.size, 1))
        mixtures[:, who] = np.where(_members(who.size), x[who], other[who])
        pending.append((who, mixtures))
        size += len(mixtures)
        if size >= _ROWS_AT_ONCE:
            _settle(function, pending, total)
            pending, size = [], 0
    if pending:
        _settle(function, pending, total)
    return total / len(background)


def _settle(
    function: Callable[[Floats], Floats],
    pending: list[tuple[NDArray[np.int64], Floats]],
    total: Floats,
) -> None:
    worth = function(np.concatenate([mixtures for _, mixtures in pending]))
    end = 0
    for who, mixtures in pending:
        begin, end = end, end + len(mixtures)
        total[who] += _weights(who.size) @ worth[begin:end]


@cache
def _members(players: int) -> NDArray[np.bool_]:
    """Coalitions × players: who is in; coalition c holds the players of c's bits."""
    return ((np.arange(1 << players)[:, None] >> np.arange(players)) & 1).astype(bool)


@cache
def _weights(players: int) -> Floats:
    """Players × coalitions: Shapley's weight of a coalition for each player, signed.

    With the player in, (s - 1)! (k - s)! / k!; without, -s! (k - s - 1)! / k!.
    """
    inside = _members(players)
    size = inside.sum(axis=1)
    k = players
    joined = np.array(
        [0.0] + [factorial(s - 1) * factorial(k - s) / factorial(k) for s in range(1, k + 1)]
    )
    apart = np.array([factorial(s) * factorial(k - s - 1) / factorial(k) for s in range(k)] + [0.0])
    weights: Floats = np.where(inside, joined[size, None], -apart[size, None]).T
    return np.ascontiguousarray(weights)
