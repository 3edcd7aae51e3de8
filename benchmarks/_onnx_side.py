"""The model behind every framework of `benchmarks/serving_frameworks.py`: ONNX Runtime, one thread.

Runs in side environments, so it imports nothing of ours. The path comes from `SCORING_MODEL`.
"""

import os

import numpy as np
import onnxruntime


class Model:
    """The probability of fraud for one row, given as a list of numbers."""

    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            os.environ["SCORING_MODEL"], options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, features):
        rows = np.array([features], dtype=np.float32)
        return float(self._session.run(["probabilities"], {"features": rows})[0][0, 1])
