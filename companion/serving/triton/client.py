"""Asking a model server by the KServe protocol, version 2 (*Open Inference Protocol*).

Triton, MLServer, KServe and others speak it: rows go as one named tensor with its shape and type,
results come back as named tensors. Over HTTP it is JSON, so that httpx is enough, whose client may
be shared by threads. Triton tells, besides, how often it asked the model and for how many rows;
their ratio is the mean batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray

KINDS = {
    "FP32": np.float32,
    "FP64": np.float64,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
"""Triton's names of types that JSON carries, and NumPy's."""


class InferenceError(Exception):
    """The server refused or broke its answer: `status` is HTTP's, `reason` the server's words."""

    def __init__(self, model: str, status: int, reason: str) -> None:
        super().__init__(f"{model}: {reason} (status {status})")
        self.model = model
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class BatchCounts:
    """How often Triton asked a model (`executions`), and for how many `rows` together."""

    rows: int
    executions: int

    @property
    def mean_batch(self) -> float:
        """Rows per execution; 0 before the first."""
        return self.rows / self.executions if self.executions else 0.0

    def since(self, earlier: BatchCounts) -> BatchCounts:
        """What was counted after `earlier`."""
        return BatchCounts(self.rows - earlier.rows, self.executions - earlier.executions)


class KServeClient:
    """Asks the server at `url`, during `with KServeClient(url) as client`.

    `timeout` bounds each request, in seconds. `transport` is httpx's, for tests.
    """

    def __init__(
        self, url: str, *, timeout: float = 5.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        # A proxy from the environment has no business between a service and its model.
        self._http = httpx.Client(
            base_url=url, timeout=timeout, transport=transport, trust_env=False
        )

    def infer(
        self, model: str, rows: ArrayLike, *, input: str = "input", kind: str = "FP32"
    ) -> Mapping[str, NDArray[Any]]:
        """The model's outputs by name, each rows × width, for `rows` (rows × features).

        Raises:
            InferenceError: the server's answer is no result for these rows.
            httpx.TransportError: it gave none (no connection, or the timeout).
        """
        matrix: NDArray[Any] = np.asarray(rows, dtype=KINDS[kind])
        tensor = {
            "name": input,
            "shape": list(matrix.shape),
            "datatype": kind,
            "data": matrix.ravel().tolist(),
        }
        answer = self._http.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]})
        outputs = _content(model, answer)["outputs"]
        return {output["name"]: _array(model, output, len(matrix)) for output in outputs}

    def counts(self, model: str) -> BatchCounts:
        """How Triton batched so far, which it counts a moment after it answers.

        Other servers of the protocol do not say.
        """
        content = _content(model, self._http.get(f"/v2/models/{model}/stats"))
        (stats,) = content["model_stats"]
        return BatchCounts(int(stats["inference_count"]), int(stats["execution_count"]))

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> KServeClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _content(model: str, answer: httpx.Response) -> Any:
    try:
        content = answer.json()
    except ValueError:
        raise InferenceError(model, answer.status_code, "the answer is no JSON") from None
    if answer.is_error:
        reason = content.get("error") if isinstance(content, dict) else None
        raise InferenceError(model, answer.status_code, str(reason or "no reason given"))
    return content


def _array(model: str, output: Mapping[str, Any], rows: int) -> NDArray[Any]:
    shape, kind = output["shape"], output["datatype"]
    if kind not in KINDS:
        raise InferenceError(model, 200, f"output {output['name']} has the unknown type {kind}")
    if not shape or shape[0] != rows:
        raise InferenceError(model, 200, f"{rows} rows were answered with shape {shape}")
    return np.array(output["data"], dtype=KINDS[kind]).reshape(shape)
