"""Runs inside Triton's Python backend: joins the requests of one batch, asks once, and divides.

Triton hands over the requests that it gathered as a list; nothing is batched until their rows are
in one array. The process is started isolated from its environment (`PYTHONPATH` is ignored), so
where the packages are comes in `TRITON_SITE`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, os.environ["TRITON_SITE"])

import numpy as np
import triton_python_backend_utils as backend  # type: ignore[import-not-found]


class TritonPythonModel:
    """The class that Triton looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Called once; `args` says where the model is and holds its configuration as JSON."""
        folder = Path(args["model_repository"]) / args["model_version"]
        config = json.loads(args["model_config"])
        self.input = config["input"][0]["name"]
        self.outputs = [
            (output["name"], backend.triton_string_to_numpy(output["data_type"]))
            for output in config["output"]
        ]
        sys.path.insert(0, str(folder))
        import predictor  # type: ignore[import-not-found]  # the file beside this one

        self.predict = predictor.load(folder)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each of `requests`, in order."""
        rows = [backend.get_input_tensor_by_name(r, self.input).as_numpy() for r in requests]
        results = self.predict(np.concatenate(rows))
        ends = np.cumsum([len(some) for some in rows])[:-1]
        divided = [np.split(result, ends) for result in results]
        return [
            backend.InferenceResponse(
                [
                    backend.Tensor(name, parts[number].astype(kind))
                    for (name, kind), parts in zip(self.outputs, divided, strict=True)
                ]
            )
            for number in range(len(requests))
        ]
