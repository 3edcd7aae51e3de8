"""A model in NVIDIA's Triton: its repository, the real server, and a client for it.

`TritonModel` writes what Triton loads, `triton_server` runs the server of the side environment
(`companion side triton`), `KServeClient` asks it, or any other server that speaks the protocol.
"""

from companion.serving.triton.client import BatchCounts, InferenceError, KServeClient
from companion.serving.triton.model import DynamicBatching, Tensor, TritonModel
from companion.serving.triton.record import Load, Record
from companion.serving.triton.server import (
    TritonMissingError,
    TritonServer,
    TritonStartError,
    triton_server,
)

__all__ = [
    "BatchCounts",
    "DynamicBatching",
    "InferenceError",
    "KServeClient",
    "Load",
    "Record",
    "Tensor",
    "TritonMissingError",
    "TritonModel",
    "TritonServer",
    "TritonStartError",
    "triton_server",
]
