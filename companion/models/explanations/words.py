"""Contributions in words that a person who knows the transaction, not the model, understands.

"log_amount_to_habit +0.93" is true and useless to whoever has to call the customer. A reason says
what was observed, in the units of everyday life, and which way it moves the score and how far.
Features that only make sense together (the sine and the cosine of the hour) are one subject: their
contributions are added up, which additivity allows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.models.explanations.explanation import Explanation, Floats, Unit

Phrase = Callable[[Floats], list[str]]
"""Words for each row, from the subject's features (rows × parts)."""


@dataclass(frozen=True)
class Reason:
    """Something observed and what it does to the score of fraud.

    `subject` is the feature, or "hour" for its sine and cosine; `words` what was observed;
    `effect` the contribution, in `unit`.
    """

    subject: str
    words: str
    effect: float
    unit: Unit

    @property
    def raises(self) -> bool:
        """Whether it speaks for fraud."""
        return self.effect > 0

    def __str__(self) -> str:
        return f"{self.words} ({effect_in_words(self.effect, self.unit)})"


def reasons(
    explanation: Explanation,
    row: int = 0,
    *,
    top: int = 3,
    context: Mapping[str, str] | None = None,
) -> tuple[Reason, ...]:
    """The `top` strongest reasons of one row, strongest first; those without effect are left out.

    `context` gives, by subject, other words than ours for what was observed ("merchant_risk_30d":
    "this petrol station is under investigation"). Features that we have no words for are told by
    name and value. For many rows `reason_table` does the same at once.

    Raises `ValueError` for `top` below 1.
    """
    one = explanation[row]
    subjects, effects, order = _ranked(one, top)
    own = context or {}
    return tuple(
        Reason(
            subject=subjects[s].name,
            words=own.get(subjects[s].name) or subjects[s].words(one.data)[0],
            effect=float(effects[0, s]),
            unit=one.unit,
        )
        for s in order[0]
        if effects[0, s] != 0
    )


def reason_table(explanation: Explanation, *, top: int = 3) -> pd.DataFrame:
    """The same for all rows: columns `reason_1`, `effect_1`, `reason_2` and so on.

    `reason_…` are words, `effect_…` float64 in the explanation's unit; where a row has no more
    reasons, "" and 0.0. Words are made subject by subject: about 100,000 rows a second.

    Raises `ValueError` for `top` below 1.
    """
    subjects, effects, order = _ranked(explanation, top)
    rows = np.arange(len(explanation))
    columns: dict[str, Any] = {}
    for rank in range(order.shape[1]):
        words = np.full(len(explanation), "", dtype=object)
        effect = effects[rows, order[:, rank]]
        for s, subject in enumerate(subjects):
            chosen = np.flatnonzero((order[:, rank] == s) & (effect != 0))
            words[chosen] = subject.words(explanation.data[chosen])
        columns[f"reason_{rank + 1}"] = pd.Series(words, dtype="str")
        columns[f"effect_{rank + 1}"] = effect
    return pd.DataFrame(columns)


def observed(names: Sequence[str], row: Floats, subject: str) -> str:
    """The words for `subject` in one row (features, called `names`).

    Raises `KeyError` where no such subject is made of `names`.
    """
    found = {made.name: made for made in _subjects(names)}
    return found[subject].words(row[None, :])[0]


def by_subject(explanation: Explanation) -> tuple[tuple[str, ...], Floats]:
    """The names of the subjects, and contributions as rows × subjects."""
    subjects = _subjects(explanation.names)
    effects = np.column_stack([explanation.values[:, s.parts].sum(axis=1) for s in subjects])
    return tuple(subject.name for subject in subjects), effects


def effect_in_words(effect: float, unit: Unit) -> str:
    """`+12.3 points` of probability, or what it does to the odds of fraud: `odds × 3.2`."""
    if unit == "probability":
        return f"{'+' if effect >= 0 else '−'}{abs(effect) * 100:.1f} points"
    factor = float(np.exp(effect))
    return f"odds × {factor:,.0f}" if factor >= 10 else f"odds × {max(factor, 0.001):.2g}"


@dataclass(frozen=True)
class _Subject:
    name: str
    parts: list[int]
    phrase: Phrase

    def words(self, data: Floats) -> list[str]:
        return self.phrase(data[:, self.parts])


def _ranked(
    explanation: Explanation, top: int
) -> tuple[Sequence[_Subject], Floats, NDArray[np.intp]]:
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    _, effects = by_subject(explanation)
    order = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, :top]
    return _subjects(explanation.names), effects, order


def _subjects(names: Sequence[str]) -> list[_Subject]:
    """What is talked about, in the order of the features that it is first made of."""
    subjects: list[_Subject] = []
    taken: set[str] = set()
    for place, name in enumerate(names):
        if name in taken:
            continue
        if name in _HOUR and set(_HOUR) <= set(names):
            subjects.append(_Subject("hour", [names.index(part) for part in _HOUR], _hour))
            taken.update(_HOUR)
        else:
            phrase = _PHRASES.get(name) or _by_name(name)
            subjects.append(_Subject(name, [place], phrase))
    return subjects


def _each(say: Callable[[float], str]) -> Phrase:
    return lambda values: [say(value) for value in values[:, 0].tolist()]


def _by_name(name: str) -> Phrase:
    return _each(lambda value: f"{name} = {value:.4g}")


def _flag(yes: str, no: str) -> Phrase:
    return _each(lambda value: yes if value > 0.5 else no)


def _habit(value: float) -> str:
    factor = float(np.exp(value))
    if 0.95 < factor < 1.05:
        return "amount as usual for this customer"
    return f"amount {factor:.{1 if factor >= 0.95 else 2}f}× this customer's habit"


def _distance(value: float) -> str:
    kilometres = float(np.expm1(value))
    return f"{kilometres:,.0f} km from home" if kilometres >= 1 else "less than 1 km from home"


def _gap(value: float) -> str:
    minutes = float(np.expm1(value))
    if minutes < 1:
        return "less than a minute after the previous one"
    if minutes < 120:
        return f"{minutes:.0f} min after the previous one"
    if minutes < 48 * 60:
        return f"{minutes / 60:.0f} h after the previous one"
    if minutes < 29.99 * 24 * 60:
        return f"{minutes / (24 * 60):.0f} days after the previous one"
    return "none before it for 30 days"


def _count(period: str) -> Callable[[float], str]:
    return lambda value: (
        f"{value:.0f} transactions in {period}" if value > 1.5 else f"the only one in {period}"
    )


def _risk(value: float) -> str:
    if value <= 0:
        return "no known fraud at this merchant"
    return f"{value:.1%} known fraud at this merchant".replace("%", " %")


def _hour(values: Floats) -> list[str]:
    minutes = np.round(np.arctan2(values[:, 0], values[:, 1]) / (2 * np.pi) * 24 * 60) % (24 * 60)
    return [f"at {minute // 60:02d}:{minute % 60:02d}" for minute in minutes.astype(int).tolist()]


_HOUR = ("hour_sin", "hour_cos")
_PHRASES: Mapping[str, Phrase] = {
    "log_amount": _each(lambda value: f"amount €{np.exp(value):,.2f}"),
    "log_amount_to_habit": _each(_habit),
    "log_distance_km": _each(_distance),
    "log_minutes_since_previous": _each(_gap),
    "is_weekend": _flag("at the weekend", "on a weekday"),
    "is_online": _flag("online", "with the card present"),
    "is_new_device": _flag("first time from this device", "from a known device"),
    "customer_count_1d": _each(_count("24 hours")),
    "customer_count_7d": _each(_count("7 days")),
    "merchant_risk_30d": _each(_risk),
}
