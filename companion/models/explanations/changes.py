"""What would have had to be different for the decision to be the other one.

A counterfactual explanation (Wachter, Mittelstadt and Russell, *Counterfactual Explanations without
Opening the Black Box*, 2017) says it in terms that can be checked against the world: "had it been
€212 instead of €812". Only what a person can picture is changed, one thing at a time, everything
that follows from it with it (an amount and its ratio to the customer's habit move together), and
of the values that turn the decision the nearest is given. It speaks of the model: what the
customer should have done is another question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from companion.models.explanations.errors import InputError
from companion.models.explanations.explanation import Floats
from companion.models.explanations.fraud_class import fraud_column
from companion.models.explanations.probabilities import fraud_probability
from companion.models.explanations.tables import check_names, numbers
from companion.models.explanations.words import observed

DAY_HOURS = 24
_LARGEST_AMOUNT = 50_000.0  # euros
_FARTHEST = 20_000.0  # km, half way round the Earth


@dataclass(frozen=True)
class Change:
    """One thing that, on its own, would have turned the decision.

    `what` is "amount", "distance", "hour" or "device"; `before` and `after` say in words what was
    and what it would have had to be; `probability` is the model's for the changed row.
    """

    what: str
    before: str
    after: str
    probability: float

    def __str__(self) -> str:
        return f"{self.after} instead of {self.before}: {self.probability:.1%}".replace("%", " %")


def what_would_change(
    model: Any, row: pd.DataFrame, *, threshold: float = 0.5, fraud: object = None
) -> tuple[Change, ...]:
    """The smallest change of each thing alone that would turn the decision at `threshold`.

    The decision is fraud where the probability reaches `threshold` (0 to 1, without both). `row` is
    a frame of one row with the features of `companion.features`; what is made of features that it
    lacks is not tried. Tried are some 80 values each: amounts by factors up to 50,000 euros and
    down to a cent, distances up to 20,000 km, every quarter of an hour, a known or a new device.
    What cannot turn the decision alone is not in the result, which may be empty.

    Raises `InputError` for anything but one row, `ValueError` for `threshold`, `FraudClassError`.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1, got {threshold}")
    check_names(row, model)
    data = numbers(row)
    if len(data) != 1:
        raise InputError(f"one row is needed, got {len(data)}")
    names = tuple(map(str, row.columns))
    column = fraud_column(model, fraud)

    tried = [(what, move(names, data[0])) for what, move in _MOVES.items()]
    candidates = [(what, *found) for what, found in tried if found is not None]
    if not candidates:
        return ()
    stacked = np.concatenate([data, *(rows for _, rows, _, _ in candidates)])
    probability = fraud_probability(model, stacked, column)
    is_fraud, now = probability >= threshold, 1
    changes = []
    for what, rows, size, subject in candidates:
        here = slice(now, now + len(rows))
        now += len(rows)
        turned = np.flatnonzero(is_fraud[here] != is_fraud[0])
        if not turned.size:
            continue
        nearest = int(turned[np.argmin(size[turned])])
        changes.append(
            Change(
                what=what,
                before=observed(names, data[0], subject),
                after=observed(names, rows[nearest], subject),
                probability=float(probability[here][nearest]),
            )
        )
    return tuple(changes)


_Found = tuple[Floats, Floats, str]
"""Changed rows, the size of each change, and the subject that tells them."""


def _amount(names: Sequence[str], row: Floats) -> _Found | None:
    if "log_amount" not in names:
        return None
    place = names.index("log_amount")
    smallest, largest = np.log(0.01) - row[place], np.log(_LARGEST_AMOUNT) - row[place]
    steps = np.linspace(-7, 7, 281)
    steps = steps[(steps >= smallest) & (steps <= largest) & (steps != 0)]
    rows = np.tile(row, (len(steps), 1))
    rows[:, place] += steps
    if "log_amount_to_habit" in names:
        rows[:, names.index("log_amount_to_habit")] += steps
    return rows, np.abs(steps), "log_amount"


def _distance(names: Sequence[str], row: Floats) -> _Found | None:
    if "log_distance_km" not in names:
        return None
    place = names.index("log_distance_km")
    values = np.log1p(np.concatenate([[0.0], np.geomspace(1, _FARTHEST, 160)]))
    values = values[values != row[place]]
    rows = np.tile(row, (len(values), 1))
    rows[:, place] = values
    return rows, np.abs(values - row[place]), "log_distance_km"


def _hour(names: Sequence[str], row: Floats) -> _Found | None:
    if not {"hour_sin", "hour_cos"} <= set(names):
        return None
    sine, cosine = names.index("hour_sin"), names.index("hour_cos")
    now = np.arctan2(row[sine], row[cosine])
    angles = np.arange(0, DAY_HOURS, 0.25) / DAY_HOURS * 2 * np.pi
    away = np.abs((angles - now + np.pi) % (2 * np.pi) - np.pi)
    rows = np.tile(row, (len(angles), 1))
    rows[:, sine], rows[:, cosine] = np.sin(angles), np.cos(angles)
    return rows, away, "hour"


def _device(names: Sequence[str], row: Floats) -> _Found | None:
    if "is_new_device" not in names:
        return None
    rows = row[None, :].copy()
    rows[0, names.index("is_new_device")] = 1 - row[names.index("is_new_device")]
    return rows, np.ones(1), "is_new_device"


_MOVES: dict[str, Callable[[Sequence[str], Floats], _Found | None]] = {
    "amount": _amount,
    "distance": _distance,
    "hour": _hour,
    "device": _device,
}
