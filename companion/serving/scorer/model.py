"""A model as the service holds it: what predicts, under which name, from which features.

The name has to travel with the prediction. Asked for separately, during a reload, it may be that of
the next model; so both stand in one frozen record, which a request takes once.

Two homes: a folder that `save_artefact` made, and a single ONNX file with its checksum. Neither is
ever unpickled, and both are verified before they are parsed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion.features.defaults import FEATURES, UnknownFeatureError
from companion.models.artefacts import load_artefact
from companion.models.onnx import OnnxModel
from companion.serving.checksummed import ChecksummedFile
from companion.serving.holder import Model, ModelHolder

_VERSION_DIGITS = 12


class ServedModel:
    """`model` under the name `version`; it sees the columns `features` of `FEATURES`, in its order.

    Raises `UnknownFeatureError` for a model that needs what is not made here.
    """

    classes_ = (0, 1)

    def __init__(self, model: Model, *, version: str, features: tuple[str, ...]) -> None:
        unknown = [name for name in features if name not in FEATURES]
        if unknown:
            raise UnknownFeatureError(unknown)
        self.model = model
        self.version = version
        self.features = features
        same = features == FEATURES
        self._order = None if same else [FEATURES.index(name) for name in features]
        self._of_one = model.fraud_of_one if same and isinstance(model, OnnxModel) else None

    def fraud(self, row: NDArray[np.float64]) -> float:
        """The probability of fraud (0–1) for 1 × `FEATURES`; raises `NoProbabilityError`."""
        if self._of_one is not None:
            return as_probability(self._of_one(row.astype(np.float32)))
        return as_probability(self.predict_proba(row)[0, 1])

    def predict_proba(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Probabilities (rows × 2) for rows × `FEATURES`."""
        return self.model.predict_proba(rows if self._order is None else rows[:, self._order])


class NoProbabilityError(ArithmeticError):
    """The model answered `value`, which is no probability."""

    def __init__(self, value: float) -> None:
        super().__init__(f"the model answered {value}, which is no probability")
        self.value = value


def as_probability(value: Any) -> float:
    """`value` as a float from 0 to 1; float32 may miss the ends by a rounding."""
    probability = float(value)
    if 0.0 <= probability <= 1.0:
        return probability
    if -1e-6 < probability < 1 + 1e-6:
        return min(1.0, max(0.0, probability))
    raise NoProbabilityError(probability)


def hold_artefact(folder: str | os.PathLike[str]) -> ModelHolder[ServedModel]:
    """A holder of the artefact in `folder`; a reload reads the folder, or where it links to, again.

    Its version is the start of the model's checksum. Loading raises what `load_artefact` does.
    """

    def load() -> ServedModel:
        artefact = load_artefact(folder)
        version = artefact.sha256[:_VERSION_DIGITS]
        return ServedModel(artefact.model, version=version, features=artefact.model.features)

    return _holder(load, Path(folder).name)


def hold_file(
    path: str | os.PathLike[str], *, sha256: str | Callable[[], str]
) -> ModelHolder[ServedModel]:
    """A holder of the ONNX model in the file `path`, whose checksum must be `sha256`."""
    file = ChecksummedFile(Path(path), sha256, OnnxModel)

    def load() -> ServedModel:
        model = file()
        return ServedModel(model, version=file.version, features=model.features)

    return _holder(load, file.path.name)


def hold_model(model: Model, *, version: str) -> ModelHolder[ServedModel]:
    """A holder of a fitted model that sees all of `FEATURES`."""
    return _holder(lambda: ServedModel(model, version=version, features=FEATURES), version)


def _holder(load: Callable[[], ServedModel], name: str) -> ModelHolder[ServedModel]:
    return ModelHolder(
        load,
        warm_up=np.zeros((1, len(FEATURES))),
        name=name,
        version_of=lambda model: model.version,
    )
