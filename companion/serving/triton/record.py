"""What Triton did when it was last measured, for machines that have none.

A figure without its date and machine is a rumour, so both are kept with it. The file is made again,
where Triton is set up, by

    python -m benchmarks.triton fixtures/triton.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from companion.storage import write_text

FIXTURE = Path(__file__).parents[3] / "fixtures" / "triton.json"


@dataclass(frozen=True)
class Load:
    """One model under one load: `batching` is "none", "no delay" or "5 ms"."""

    model: str
    batching: str
    connections: int
    requests_per_s: float
    p50_ms: float
    mean_batch: float


@dataclass(frozen=True)
class Record:
    """Measured on `date` on `machine`, by the load generator `tool`.

    `refusals` are what the server says to a configuration that it cannot load, by the
    configuration's name. `answered` counts the requests of four threads that were answered, by how
    the threads hold tritonclient's HTTP client ("shared", "one each"); each sent twenty.
    """

    date: str
    machine: str
    server: str
    tool: str
    loads: tuple[Load, ...]
    refusals: Mapping[str, str]
    answered: Mapping[str, int]

    def load_of(self, model: str, batching: str, connections: int) -> Load:
        """The figures of one combination; raises `KeyError` where it was not measured."""
        for load in self.loads:
            if (load.model, load.batching, load.connections) == (model, batching, connections):
                return load
        raise KeyError((model, batching, connections))

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path = FIXTURE) -> Record:
        """The record in `path`, by default the one that comes with the checkout."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**content, "loads": tuple(Load(**load) for load in content["loads"])})
