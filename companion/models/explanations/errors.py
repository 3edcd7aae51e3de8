"""The named ways in which a model cannot be explained, each with what would help."""

from collections.abc import Sequence


class ExplanationError(Exception):
    """Base of everything that this package raises by itself."""


class FraudClassError(ExplanationError, ValueError):
    """Which of `classes` is fraud cannot be told; `fraud=` says it."""

    def __init__(self, classes: Sequence[object], reason: str) -> None:
        listed = ", ".join(map(repr, classes)) or "none"
        super().__init__(f"{reason}; the model's classes are {listed}")
        self.classes = tuple(classes)


class UnitError(ExplanationError, ValueError):
    """`unit` cannot be given for this model in this way; `possible` can."""

    def __init__(self, unit: object, possible: Sequence[str], reason: str) -> None:
        super().__init__(f"no explanation in {unit!r}: {reason}; possible: {', '.join(possible)}")
        self.unit = unit
        self.possible = tuple(possible)


class BackgroundError(ExplanationError, ValueError):
    """The background, to which a row is compared, is missing or does not fit the rows."""


class PreprocessingError(ExplanationError, ValueError):
    """What stands before the model mixes columns, so its columns are nobody's features.

    `columns` are the transformed columns, by position, that depend on several features or share
    one.
    """

    def __init__(self, reason: str, columns: Sequence[int] = ()) -> None:
        super().__init__(
            f"the preprocessing is not column by column: {reason}; explain the model behind it on "
            "transformed rows"
        )
        self.columns = tuple(columns)


class InputError(ExplanationError, ValueError):
    """The rows to be explained are no table of numbers; `columns` names the culprits."""

    def __init__(self, reason: str, columns: Sequence[object] = ()) -> None:
        named = f": {', '.join(map(str, columns))}" if columns else ""
        super().__init__(f"{reason}{named}")
        self.columns = tuple(columns)


class UnsupportedModelError(ExplanationError, TypeError):
    """`model` is none of the models that can be explained here."""

    def __init__(self, model: object, reason: str) -> None:
        super().__init__(f"{type(model).__name__} cannot be explained: {reason}")
        self.model = model


class AdditivityError(ExplanationError, ArithmeticError):
    """Base and contributions do not add up to what the model says.

    `row` is the position of the worst row and `difference` how far off it is, in `unit`.
    """

    def __init__(self, row: int, difference: float, unit: str, tolerance: float) -> None:
        super().__init__(
            f"row {row}: base and contributions miss the model's output by {difference:.3g} "
            f"({unit}; tolerated: {tolerance:.1g})"
        )
        self.row = row
        self.difference = difference
        self.unit = unit
