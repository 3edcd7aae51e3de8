"""The named ways in which an export or a prediction through ONNX can fail."""

from collections.abc import Mapping, Sequence


class UnsupportedModelError(TypeError):
    """A part of the model, `part`, has no exact counterpart in ONNX here."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"{part} cannot be exported: {reason}")
        self.part = part


class NotProbabilitiesError(ValueError):
    """What comes out is no pair of probabilities; `row` is the first such row, `found` its pair."""

    def __init__(self, source: str, row: int, found: Sequence[float]) -> None:
        pair = ", ".join(f"{value:.6g}" for value in found)
        super().__init__(
            f"{source} gives ({pair}) for row {row}: not two numbers from 0 to 1 that sum to 1. "
            "A net whose criterion is not CrossEntropyLoss gives what its module returns, logits"
        )
        self.row = row
        self.found = tuple(found)


class ParityError(ArithmeticError):
    """The file does not say what the model says; nothing was exported.

    `difference` is the largest between two probabilities, `row` its position among the rows of
    `origin`, `features` that row, `expected` and `got` the model's and the file's probability of
    fraud there.
    """

    def __init__(
        self,
        origin: str,
        row: int,
        features: Mapping[str, float],
        expected: float,
        got: float,
        *,
        difference: float,
        tolerance: float,
        advice: str,
    ) -> None:
        super().__init__(
            f"{origin}, row {row}: the model says {expected:.9g}, the file {got:.9g} "
            f"(off by {difference:.2g}, allowed {tolerance:.2g}); {advice}"
        )
        self.origin = origin
        self.row = row
        self.features = dict(features)
        self.expected = expected
        self.got = got
        self.difference = difference
        self.tolerance = tolerance


class InvalidModelError(ValueError):
    """The bytes are no model that `export_onnx` wrote."""


class FeatureMismatchError(ValueError):
    """The columns are not those that the model was trained on, whatever their order.

    `missing`, `unexpected` and `repeated` are names, in order.
    """

    def __init__(
        self, missing: Sequence[str], unexpected: Sequence[str], repeated: Sequence[str] = ()
    ) -> None:
        parts = [
            f"{what}: {', '.join(names)}"
            for what, names in (
                ("missing", missing),
                ("not known to the model", unexpected),
                ("there more than once", repeated),
            )
            if names
        ]
        super().__init__(f"the columns are not the model's features ({'; '.join(parts)})")
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.repeated = tuple(repeated)


class InvalidRowsError(ValueError):
    """The rows are no numbers that the model can read.

    `columns` names the features concerned, `row` is the position of the first such row; either is
    empty (None) where the whole table is concerned.
    """

    def __init__(self, problem: str, columns: Sequence[str] = (), row: int | None = None) -> None:
        super().__init__(problem)
        self.columns = tuple(columns)
        self.row = row
