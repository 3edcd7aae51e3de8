"""Why a row is suspicious, in words, for the rows that somebody will look at.

What speaks against an alert is of no use to whoever works through alerts, so only what raises the
score is said, the strongest first. Models trained here are boosted trees, whose contributions are
exact and cost next to nothing; a saved model is any function of a row, and is asked about every
mixture of the row with a few ordinary ones (`companion.models.explanations`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from companion.models.explanations import Explainer, reason_table
from companion.models.scoring.basis import Basis

MOST_REASONS = 3
BACKGROUND_ROWS = 4
"""Ordinary rows that those of a saved model are compared with."""


class Reasons:
    """Prepared once for the model of `basis` and the file's features `X` (rows × features)."""

    def __init__(self, basis: Basis, X: pd.DataFrame) -> None:
        needs_background = basis.kind == "saved model"
        self._explain = Explainer(
            basis.model, background=_ordinary(X) if needs_background else None
        )

    def __call__(self, X: pd.DataFrame) -> list[str]:
        """Up to three reasons for each row of `X`, joined by semicolons."""
        # One more than is told, in case that one of the strongest speaks against the alert.
        table = reason_table(self._explain(X), top=MOST_REASONS + 1)
        ranks = range(1, table.shape[1] // 2 + 1)
        words = table[[f"reason_{rank}" for rank in ranks]].to_numpy(dtype=object)
        raises = table[[f"effect_{rank}" for rank in ranks]].to_numpy() > 0
        return [
            "; ".join(row[chosen][:MOST_REASONS]) for row, chosen in zip(words, raises, strict=True)
        ]


def _ordinary(X: pd.DataFrame) -> pd.DataFrame:
    """A few rows from all over the time that the file covers."""
    places = np.linspace(0, len(X) - 1, min(BACKGROUND_ROWS, len(X))).round().astype(int)
    return X.iloc[places]
