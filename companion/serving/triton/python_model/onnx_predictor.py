"""Runs inside Triton's Python backend: answers with the outputs of the `model.onnx` beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime


def load(folder: Path) -> Callable[[Any], list[Any]]:
    """A function from rows × features to the model's outputs, in the file's order."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name

    def predict(rows: Any) -> list[Any]:
        outputs: list[Any] = session.run(None, {name: rows})
        return outputs

    return predict
