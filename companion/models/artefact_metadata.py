"""What is written down beside a model, so that in a year somebody can tell where it came from.

The list is that of a model card (Mitchell et al., "Model Cards for Model Reporting", FAT* 2019)
cut down to what a program knows: which features in which order, of which version, trained on
which days, how good on which metrics, with which seed and packages.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from companion.models.artefact_errors import InvalidMetadataError

FORMAT = 1
_PACKAGES = ("companion", "numpy", "onnx", "onnxruntime", "scikit-learn", "skorch", "torch")


@dataclass(frozen=True)
class TrainingRecord:
    """What only the one who trained the model knows.

    `family` names the kind of model, `feature_set` the version of the feature set, `window` holds
    the times of the first and the last transaction trained on (aware of their zone), `metrics` are
    finite numbers by name.

    Raises `InvalidMetadataError`.
    """

    family: str
    feature_set: str
    window: tuple[datetime, datetime]
    seed: int
    metrics: Mapping[str, float]

    def __post_init__(self) -> None:
        for field, text in (("family", self.family), ("feature_set", self.feature_set)):
            if not text:
                raise InvalidMetadataError(field, "it is empty")
        _check_times("window", *self.window)
        if self.window[0] > self.window[1]:
            raise InvalidMetadataError("window", "it ends before it begins")
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                raise InvalidMetadataError("metrics", f"{name} is {value}, which JSON cannot hold")


@dataclass(frozen=True)
class ArtefactMetadata:
    """All that an artefact says about its model.

    `features` are the columns in the order of a matrix, `packages` the versions it was exported
    with, `created_at` the time of saving, in UTC.
    """

    training: TrainingRecord
    features: tuple[str, ...]
    packages: Mapping[str, str]
    created_at: datetime


def describe(
    training: TrainingRecord, features: tuple[str, ...], created_at: datetime
) -> ArtefactMetadata:
    """The metadata of a model exported here and now; raises `InvalidMetadataError`."""
    _check_times("created_at", created_at)
    packages = {name: version(name) for name in _PACKAGES}
    return ArtefactMetadata(training, features, packages, created_at.astimezone(UTC))


def to_json(metadata: ArtefactMetadata) -> str:
    """The text of `metadata.json`."""
    training = metadata.training
    content = {
        "format": FORMAT,
        "created_at": metadata.created_at.isoformat(),
        "family": training.family,
        "features": list(metadata.features),
        "feature_set": training.feature_set,
        "window": [moment.isoformat() for moment in training.window],
        "seed": training.seed,
        "metrics": {name: float(value) for name, value in training.metrics.items()},
        "packages": dict(metadata.packages),
    }
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def from_json(text: str) -> ArtefactMetadata:
    """The metadata in `text`; raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    content = json.loads(text)
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']!r} is not {FORMAT}")
    first, last = (datetime.fromisoformat(moment) for moment in content["window"])
    return ArtefactMetadata(
        training=TrainingRecord(
            family=content["family"],
            feature_set=content["feature_set"],
            window=(first, last),
            seed=content["seed"],
            metrics=content["metrics"],
        ),
        features=tuple(content["features"]),
        packages=content["packages"],
        created_at=datetime.fromisoformat(content["created_at"]),
    )


def _check_times(field: str, *moments: datetime) -> None:
    if any(moment.tzinfo is None for moment in moments):
        raise InvalidMetadataError(field, "a time without its zone means another one elsewhere")
