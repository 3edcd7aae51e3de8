"""Scores for a piece of a batch, and what to do about the row that breaks the model.

A row can be a valid transaction and still be one that the scoring function cannot take. Giving up
the whole piece for it would cost thousands of good rows; trying the rows one by one would cost the
speed of all others. So a piece that fails is cut in half, and the halves again: k such rows among n
cost about 2k·log₂(n/k) extra calls, and nothing where there are none.

That rests on a promise: *the score of a row depends on that row alone*. Features that look at other
rows are made before, of the whole file (`model_scorer`), or a row's history would end where
its piece begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.serving.jobs.errors import InvalidScoresError

Floats = NDArray[np.float64]
Score = Callable[[pd.DataFrame], Any]
"""The probability of fraud of each row of a frame, one number a row."""
Features = Callable[[pd.DataFrame], pd.DataFrame]
"""What the scores are made of, one row for each transaction, index kept."""

MOST_POISON_ROWS = 100
"""In one piece; more of them are no bad rows but a bad model."""


@dataclass(frozen=True)
class Scored:
    """`probability` of each row, NaN for those in `poison`: position to the error's type."""

    probability: Floats
    poison: dict[int, str]


def score_piece(score: Score, frame: pd.DataFrame) -> Scored:
    """Score `frame` in one call, or find the rows that cannot be scored.

    Raises what `score` raised where that holds for every row (of more than one) or for more than
    `MOST_POISON_ROWS`, since then the rows are not to blame; and `InvalidScoresError` where it
    answers with another number of scores.
    """
    found = np.full(len(frame), np.nan)
    poison: dict[int, str] = {}
    waiting = [(0, len(frame))] if len(frame) else []
    while waiting:
        first, end = waiting.pop()
        try:
            found[first:end] = _answer(score, frame.iloc[first:end])
        except InvalidScoresError:
            raise
        except Exception as error:
            if end - first > 1:
                middle = (first + end) // 2
                waiting += [(middle, end), (first, middle)]
                continue
            poison[first] = type(error).__name__
            if len(poison) > MOST_POISON_ROWS or 1 < len(frame) == len(poison):
                raise
    good = (found >= 0) & (found <= 1)
    for position in np.flatnonzero(~good):
        poison.setdefault(int(position), "no probability")
    return Scored(np.where(good, found, np.nan), poison)


def _answer(score: Score, frame: pd.DataFrame) -> Floats:
    answer = np.asarray(score(frame), dtype="float64")
    if answer.shape != (len(frame),):
        raise InvalidScoresError(
            f"{len(frame)} rows were answered by scores of the shape {answer.shape}"
        )
    return answer
