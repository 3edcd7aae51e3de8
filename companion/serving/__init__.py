"""Serving a model: loaded once, warm before it is seen, exchanged without a gap.

`ModelHolder` does that for any model and needs no web framework; `companion.serving.app` puts the
smallest HTTP service around one (and is imported by its own name, since it imports FastAPI).
"""

from companion.serving.errors import (
    ChecksumMismatchError,
    ModelLoadError,
    ModelReloadError,
    WarmUpError,
)
from companion.serving.holder import HolderStatus, Model, ModelHolder

__all__ = [
    "ChecksumMismatchError",
    "HolderStatus",
    "Model",
    "ModelHolder",
    "ModelLoadError",
    "ModelReloadError",
    "WarmUpError",
]
