"""Fitted models as ONNX: one file, proven to say what the model says, served without scikit-learn.

`export_onnx` writes the file, `OnnxModel` reads it; `companion.models.artefacts` keeps it with what
must be known of it. Writing needs what trained the model and is looked up when it is used (PEP
562): who only reads does not wait for scikit-learn.
"""

from typing import TYPE_CHECKING, Any

from companion.models.onnx.errors import (
    FeatureMismatchError,
    InvalidModelError,
    InvalidRowsError,
    NotProbabilitiesError,
    ParityError,
    UnsupportedModelError,
)
from companion.models.onnx.model import OnnxModel

if TYPE_CHECKING:
    from companion.models.onnx.export import export_onnx

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


def __getattr__(name: str) -> Any:
    if name != "export_onnx":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from companion.models.onnx.export import export_onnx

    return export_onnx
