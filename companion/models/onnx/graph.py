"""An ONNX graph under construction, with the number format of every value written down.

An export differs from its model where the two round differently. So a value here knows the format
(float32 or float64) in which *scikit-learn* would hold it at that point, each step computes in
that format, and a change of format is a Cast in the graph wherever it is one in the model.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

INPUT, OUTPUT = "features", "probabilities"
TREES = "ai.onnx.ml"
_FORMATS = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
}
# Opset 18 and ml 5 (the first with trees in float64) are read by every runtime since early 2024.
_OPSETS = {"": 18, TREES: 5}
_IR_VERSION = 10

Unscale = Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Value:
    """A tensor (rows × columns): the format that the model holds it in, and its names by format.

    The graph's input arrives in float32 but is held in float64, as the model's training data was;
    it is the only value with a name in a format other than its own to begin with. `unscale` maps
    (columns, numbers) here back to the numbers of the input.
    """

    format: str
    names: dict[str, str]
    unscale: Unscale


@dataclass
class Graph:
    """Nodes and constants in the order of their making, and where the model's decisions turn.

    `boundaries` holds (input columns, input values) at which a tree chooses another branch.
    """

    n_features: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    boundaries: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = field(default_factory=list)

    def input(self) -> Value:
        """The features, rows × `n_features`."""
        return Value("float64", {"float32": INPUT}, lambda columns, values: values)

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append one node with one output and give the output's name."""
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, array: Any, format: str) -> str:
        """A constant of that format and its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype=format), name))
        return name

    def read(self, value: Value, format: str) -> str:
        """The name of `value` in `format`, with a Cast where there is none yet."""
        if format not in value.names:
            source = next(iter(value.names.values()))
            value.names[format] = self.cast(source, format)
        return value.names[format]

    def cast(self, name: str, format: str) -> str:
        """The name of that tensor in `format`, by a Cast."""
        return self.node("Cast", name, to=_FORMATS[format])

    def finish(self, probabilities: str, metadata: dict[str, str]) -> bytes:
        """The whole model: float32 `features` in, the tensor called `probabilities` out."""
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [OUTPUT if name == probabilities else name for name in names]
        graph = helper.make_graph(
            self.nodes,
            "fraud",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", self.n_features])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows", 2])],
            self.constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(name, number) for name, number in _OPSETS.items()],
            ir_version=_IR_VERSION,
            producer_name="companion",
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString(deterministic=True)
        return data
