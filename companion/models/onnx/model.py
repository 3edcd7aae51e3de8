"""A fraud model as one ONNX file: probabilities from rows, without the library that trained it.

The file is data, not code: unlike a pickle it can be loaded from a stranger, and unlike one it
does not depend on scikit-learn's version. Most of the time that scikit-learn needs for a single
row is spent in Python, on checks and on handing each tree to joblib; a compiled graph has none of
it, so the way around it here is kept as short as the checks allow.
"""

import json

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from companion.models.onnx.errors import InvalidModelError
from companion.models.onnx.graph import INPUT, OUTPUT
from companion.models.onnx.rows import as_float32, as_matrix

FEATURES_KEY = "companion.features"
_ONLY_ERRORS = 3
# Below it no number is missing, infinite, or too large for float32; above, the longer way decides.
_SURELY_FINITE = 1e38
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_OUTPUTS = [OUTPUT]


class OnnxModel:
    """A model from the bytes that `export_onnx` gave; any number of threads may ask it at once.

    `threads` is how many threads one prediction may use; one is best for single rows and for a
    service that answers several requests side by side. `features` holds the names of the columns
    in the order of a matrix.

    Raises `InvalidModelError` for other bytes, `ValueError` for `threads` below 1.
    """

    def __init__(self, data: bytes, *, threads: int = 1) -> None:
        if threads < 1:
            raise ValueError(f"a prediction needs at least one thread, got {threads=}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ONLY_ERRORS
        # Waiting threads that spin would take the cores from whoever else serves here.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a dozen, and no common base
            raise InvalidModelError(
                f"these {len(data)} bytes are no ONNX model: {error}"
            ) from error
        self.features = _features_of(self._session)
        self._single = (1, len(self.features))
        # The wrapper around it looks at names and types every time, which takes a fifth as long as
        # the prediction of one row.
        self._run_unchecked = self._session._sess.run

    def predict_proba(self, X: object) -> NDArray[np.float32]:
        """The probabilities (rows × 2) of legitimate and fraud for `X` (rows × features).

        `X` is a DataFrame, whose columns are put in order by name, or anything that makes a
        matrix of numbers, whose columns are taken to be in the order of `features`.

        Raises `FeatureMismatchError` for other columns, `InvalidRowsError` for another width, for
        text and dates, and for missing or infinite values.
        """
        # One row, as a service asks: each line here costs a twentieth of the whole prediction.
        if (
            type(X) is np.ndarray
            and X.shape == self._single
            and (X.dtype is _FLOAT32 or X.dtype is _FLOAT64)
            and np.vdot(X, X) < _SURELY_FINITE
        ):
            ready = X.dtype is _FLOAT32 and X.flags.c_contiguous
            return self._run(X if ready else X.astype(np.float32, order="C"))
        rows = as_float32(as_matrix(X, self.features), self.features)
        return self._run(rows) if len(rows) else np.empty((0, 2), dtype=np.float32)

    def fraud_of_one(self, row: NDArray[np.float32]) -> float:
        """The probability of fraud of one row that is known to be in order; nothing is checked.

        `row` is 1 × features, float32, C order, finite. For a service that made it itself.
        """
        fraud: float = self._run_unchecked(_OUTPUTS, {INPUT: row}, None)[0].item(1)
        return fraud

    def _run(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = self._session.run(_OUTPUTS, {INPUT: rows})[0]
        return probabilities


def _features_of(session: onnxruntime.InferenceSession) -> tuple[str, ...]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shapes = [(value.name, value.type, len(value.shape)) for value in (*inputs, *outputs)]
    if shapes != [(INPUT, "tensor(float)", 2), (OUTPUT, "tensor(float)", 2)]:
        raise InvalidModelError(f"this ONNX model is none of ours: it has {shapes}")
    try:
        names = json.loads(session.get_modelmeta().custom_metadata_map[FEATURES_KEY])
    except (KeyError, ValueError) as error:
        raise InvalidModelError("this ONNX model does not name its features") from error
    if not isinstance(names, list) or len(names) != inputs[0].shape[1]:
        raise InvalidModelError(
            f"this ONNX model has {inputs[0].shape[1]} features and other names: {names}"
        )
    return tuple(map(str, names))
