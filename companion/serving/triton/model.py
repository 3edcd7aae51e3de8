"""What Triton loads: a folder per model, with its configuration and one folder per version.

    repository/
        fraud/
            config.pbtxt
            1/
                model.py         (how Triton's Python backend asks: the same for every model)
                predictor.py     (load(folder) gives a function from rows to results)
                model.onnx       (whatever else the predictor reads)

The wheel of Triton's server brings the Python backend and no other, so an ONNX file runs inside it,
by ONNX Runtime. The configuration is protobuf's text format; the fields are those of Triton's
*Model Configuration*. Its batch dimension comes from `max_batch` and is left out of the shapes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from companion.storage import write_bytes, write_text

_PYTHON_MODEL = Path(__file__).with_name("python_model")
ONNX_PREDICTOR = _PYTHON_MODEL / "onnx_predictor.py"
"""Answers with all outputs of the `model.onnx` beside it, on one thread."""

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Tensor:
    """An input or output: its name, its `width` (values a row), its type in Triton's words."""

    name: str
    width: int
    kind: str = "FP32"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name for a tensor")
        if self.width < 1:
            raise ValueError(f"{self.name} holds at least 1 value a row, got width={self.width}")


@dataclass(frozen=True)
class DynamicBatching:
    """Triton puts requests together: those that wait, after at most `max_delay` seconds.

    With a delay of 0 requests gather only while the model is busy, so a lone one never waits.
    """

    max_delay: float = 0.0

    def __post_init__(self) -> None:
        if self.max_delay < 0:
            raise ValueError(f"a delay is not negative, got max_delay={self.max_delay}")


@dataclass(frozen=True)
class TritonModel:
    """A model for Triton's Python backend, on the CPU.

    `predictor` is a Python file with `load(folder) -> predict`; `folder` holds `files`, and
    `predict` gets rows × features and gives one array (rows × width) for each of `outputs`. Without
    `batching` every request goes to the model alone. `instances` processes run it.

    Raises:
        ValueError: a name that is no name of a folder, or a number below 1.
    """

    name: str
    input: Tensor
    outputs: tuple[Tensor, ...]
    predictor: Path = ONNX_PREDICTOR
    files: Mapping[str, bytes] = field(default_factory=dict)
    max_batch: int = 256
    batching: DynamicBatching | None = None
    instances: int = 1

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name for a model")
        for what, number in (("max_batch", self.max_batch), ("instances", self.instances)):
            if number < 1:
                raise ValueError(f"{what} is at least 1, got {number}")

    def config(self) -> str:
        """The text of its `config.pbtxt`."""
        lines = [
            f'name: "{self.name}"',
            'backend: "python"',
            f"max_batch_size: {self.max_batch}",
            _tensors("input", (self.input,)),
            _tensors("output", self.outputs),
            f"instance_group [ {{ count: {self.instances}, kind: KIND_CPU }} ]",
        ]
        if self.batching is not None:
            microseconds = round(self.batching.max_delay * 1e6)
            lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {microseconds} }}")
        return "\n".join(lines) + "\n"

    def write(self, repository: Path) -> Path:
        """Write version 1 of it below `repository`; returns the model's folder."""
        folder = repository / self.name
        version = folder / "1"
        version.mkdir(parents=True)
        for name, data in self.files.items():
            write_bytes(version / name, data)
        write_bytes(version / "predictor.py", self.predictor.read_bytes())
        write_bytes(version / "model.py", (_PYTHON_MODEL / "model.py").read_bytes())
        write_text(folder / "config.pbtxt", self.config())
        return folder


def _tensors(what: str, tensors: tuple[Tensor, ...]) -> str:
    each = ", ".join(
        f'{{ name: "{t.name}", data_type: TYPE_{t.kind}, dims: [ {t.width} ] }}' for t in tensors
    )
    return f"{what} [ {each} ]"
