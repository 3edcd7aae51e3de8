"""What an explanation is: one signed number a feature and row, in a stated unit, that adds up.

The idea is Shapley's (*A Value for n-Person Games*, 1953), brought to models by Štrumbelj and
Kononenko (2010) and by Lundberg and Lee, *A Unified Approach to Interpreting Model Predictions*
(2017): the difference between what a model says about a row and what it says on average is
divided among the features. That the parts add up to the whole is what makes them worth showing, so
it is checked for every row (`check_additivity`) before anybody sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from companion.models.explanations.errors import AdditivityError

Floats = NDArray[np.float64]
Unit = Literal["probability", "log-odds"]
UNITS: tuple[Unit, ...] = get_args(Unit)

TOLERANCE: dict[Unit, float] = {"probability": 1e-6, "log-odds": 1e-5}
"""How far the sum may be off; in log-odds relative to the output where that is above 1."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Contributions to the score of fraud, as read-only arrays.

    Attributes:
        values: rows × features; what each feature adds to the score of fraud, in `unit`.
        base: the score to which a row is compared, in `unit`.
        unit: `"probability"`, or `"log-odds"`: ln(p / (1 - p)).
        data: rows × features; the values of the features, as the caller gave them.
        names: of the features.
        output: rows; the model's own score, in `unit`; base + values.sum(axis=1), proven.
        probability: rows; the model's probability of fraud, whatever the unit.
    """

    values: Floats
    base: float
    unit: Unit
    data: Floats
    names: tuple[str, ...]
    output: Floats
    probability: Floats

    def __post_init__(self) -> None:
        for array in (self.values, self.data, self.output, self.probability):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: int | slice | ArrayLike) -> Explanation:
        """The same for some rows: a position, a slice, positions or a mask."""
        chosen: Any = [int(rows)] if isinstance(rows, int | np.integer) else rows
        if not isinstance(chosen, slice):
            chosen = np.asarray(chosen)
        return replace(
            self,
            values=self.values[chosen],
            data=self.data[chosen],
            output=self.output[chosen],
            probability=self.probability[chosen],
        )

    def __iter__(self) -> Iterator[Explanation]:
        return (self[row] for row in range(len(self)))

    @property
    def importance(self) -> Floats:
        """Features; the mean of |contribution| over the rows, in `unit`."""
        mean: Floats = np.abs(self.values).mean(axis=0)
        return mean

    def column(self, name: str) -> int:
        """Where the feature `name` stands; raises `ValueError` where there is none."""
        return self.names.index(name)


def check_additivity(values: Floats, base: float, output: Floats, unit: Unit) -> None:
    """Raise `AdditivityError` with the worst row unless base + values (rows × features) = output.

    An output that is no number, or a contribution that is none, is as wrong as a wrong one.
    """
    difference = np.abs(base + values.sum(axis=1) - output)
    scale = np.maximum(1.0, np.abs(output)) if unit == "log-odds" else 1.0
    wrong = ~(difference <= TOLERANCE[unit] * scale)
    if not wrong.any():
        return
    row = int(np.argmax(np.where(np.isnan(difference), np.inf, difference) * wrong))
    raise AdditivityError(row, float(difference[row]), unit, TOLERANCE[unit])
