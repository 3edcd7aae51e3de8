"""Fitted models as ONNX: one file, proven to say what the model says, served without scikit-learn.

`export_onnx` writes the file, `OnnxModel` reads it; `companion.models.artefacts` keeps it with what
must be known of it.
"""

from companion.models.onnx.errors import (
    FeatureMismatchError,
    InvalidModelError,
    InvalidRowsError,
    NotProbabilitiesError,
    ParityError,
    UnsupportedModelError,
)
from companion.models.onnx.export import export_onnx
from companion.models.onnx.model import OnnxModel

__all__ = [
    "FeatureMismatchError",
    "InvalidModelError",
    "InvalidRowsError",
    "NotProbabilitiesError",
    "OnnxModel",
    "ParityError",
    "UnsupportedModelError",
    "export_onnx",
]
