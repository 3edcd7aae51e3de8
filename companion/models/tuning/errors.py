"""What tuning refuses, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class TuningError(Exception):
    """The base of the errors that tuning names itself."""


class StudyMismatchError(TuningError, ValueError):
    """The stored study tuned something else; `differences` maps what differs to (stored, asked)."""

    def __init__(self, study_name: str, differences: Mapping[str, tuple[Any, Any]]) -> None:
        told = "; ".join(
            f"{what}: {stored!r} stored, {asked!r} asked"
            for what, (stored, asked) in differences.items()
        )
        super().__init__(
            f"the study {study_name!r} cannot go on with this: {told}. "
            "Choose another study_name, or the same settings and data"
        )
        self.study_name, self.differences = study_name, dict(differences)


class NoFiniteValueError(TuningError, ArithmeticError):
    """An objective returned `value`, which is no finite number, for `parameters`."""

    def __init__(self, number: int, value: object, parameters: Mapping[str, Any]) -> None:
        super().__init__(f"trial {number} ended with {value!r} for {dict(parameters)}")
        self.number, self.value, self.parameters = number, value, dict(parameters)


class NothingFinishedError(TuningError):
    """No trial ran to its end, so there is no best one; `states` counts the trials by state."""

    def __init__(self, study_name: str, states: Mapping[str, int]) -> None:
        counted = ", ".join(f"{count} {state}" for state, count in states.items()) or "no trial"
        super().__init__(f"the study {study_name!r} holds no complete trial yet: {counted}")
        self.study_name, self.states = study_name, dict(states)
