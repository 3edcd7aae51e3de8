"""A real Triton on the CPU: two models, three ways of batching, many connections and one.

The models are a forest of 100 trees in scikit-learn and the same forest as ONNX, both in Triton's
Python backend (the wheel brings no other), one instance each; a request carries one row. Ratios are
to the same model without batching, of requests a second at 64 connections and of latency at one.
Without the side environment (`companion side triton`) the rows are those of `fixtures/triton.json`,
and say so. The file is made again by

    python -m benchmarks.triton fixtures/triton.json
"""

import io
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks._http_load import Target, interleaved, tool
from companion.features import feature_matrix
from companion.instruments import Row
from companion.models.families import make_forest
from companion.models.onnx import export_onnx
from companion.serving.triton import (
    DynamicBatching,
    KServeClient,
    Load,
    Record,
    Tensor,
    TritonMissingError,
    TritonModel,
    TritonStartError,
    triton_server,
)
from companion.serving.triton.server import SIDE, TritonServer
from companion.transactions import simulate

TITLE = "Triton"

_WAYS = {"none": None, "no delay": DynamicBatching(0.0), "5 ms": DynamicBatching(0.005)}
_CONNECTIONS = (64, 1)
_SECONDS = 3.0
_ROUNDS = 3
_BODIES = 200
_HERE = Path(__file__).parent


def run() -> list[Row]:
    try:
        record = measure()
        source = ""
    except TritonMissingError:
        record = Record.read()
        source = f", recorded {record.date}"
    rows = []
    for load in record.loads:
        base = record.load_of(load.model, "none", load.connections)
        what = f"{load.model}, {load.connections} connection{'s' * (load.connections > 1)}{source}"
        if load.connections == 1:
            rows.append(
                Row(f"{what}, p50", load.batching, load.p50_ms, "ms", load.p50_ms / base.p50_ms)
            )
            continue
        ratio = load.requests_per_s / base.requests_per_s
        rows.append(Row(what, load.batching, load.requests_per_s, "requests/s", ratio))
        rows.append(Row(f"{what}, mean batch", load.batching, load.mean_batch, "rows"))
    of = f"of 80 answered{source}"
    rows += [Row("tritonclient, 4 threads", how, n, of) for how, n in record.answered.items()]
    return rows


def measure() -> Record:
    """Everything, now; raises `TritonMissingError` where there is no Triton."""
    models = _models()
    refusals = {
        "backend onnxruntime": _refusal(models[0], '"python"', '"onnxruntime"'),
        "KIND_GPU": _refusal(models[0], "KIND_CPU", "KIND_GPU"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            model.write(Path(folder))
        with triton_server(Path(folder), timeout=120) as server:
            loads = [load for count in _CONNECTIONS for load in _loads(server, models, count)]
            answered = _tritonclient(server, models[-1])
            version = server.process.log().split("server_version")[1].split("|")[1].strip()
    return Record(
        date=datetime.now(UTC).date().isoformat(),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, no GPU",
        server=f"tritonserver {version}, nvidia-pytriton 0.7.0",
        tool=tool(),
        loads=tuple(loads),
        refusals=refusals,
        answered=answered,
    )


def _models() -> list[TritonModel]:
    X, y = feature_matrix(simulate(20_000, seed=10))
    rows = X.to_numpy(dtype=np.float32)
    with threadpool_limits(1):
        exported = export_onnx(make_forest(seed=0, trees=100).fit(rows, y), rows[:2_000])
    packed = io.BytesIO()
    np.savez(packed, X=rows, y=y.to_numpy())
    asked, answer = Tensor("features", rows.shape[1]), (Tensor("probabilities", 2),)
    kinds = (
        TritonModel(
            "forest",
            asked,
            answer,
            predictor=_HERE / "_triton_forest.py",
            files={"rows.npz": packed.getvalue()},
        ),
        TritonModel("onnx", asked, answer, files={"model.onnx": exported}),
    )
    return [
        replace(model, name=f"{model.name}-{way.replace(' ', '-')}", batching=batching)
        for model in kinds
        for way, batching in _WAYS.items()
    ]


def _loads(server: TritonServer, models: list[TritonModel], connections: int) -> list[Load]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(_BODIES, 12)).round(4).tolist()
    tensor = {"name": "features", "shape": [1, 12], "datatype": "FP32"}
    bodies = [json.dumps({"inputs": [{**tensor, "data": row}]}).encode() for row in rows]
    targets = {
        model.name: Target(f"{server.url}/v2/models/{model.name}/infer", bodies) for model in models
    }
    with KServeClient(server.url) as client:
        before = {name: client.counts(name) for name in targets}
        seen = interleaved(targets, connections=connections, seconds=_SECONDS, rounds=_ROUNDS)
        counts = {name: client.counts(name).since(before[name]) for name in targets}
    ways = list(_WAYS)
    return [
        Load(
            name.split("-")[0],
            ways[place % len(ways)],
            connections,
            round(load.requests_per_s, 1),
            round(load.p50_ms, 2),
            round(counts[name].mean_batch, 1),
        )
        for place, (name, load) in enumerate(seen.items())
    ]


def _refusal(model: TritonModel, ours: str, theirs: str) -> str:
    """What Triton says to `model` with one thing in its configuration changed."""
    with tempfile.TemporaryDirectory() as folder:
        config = model.write(Path(folder)) / "config.pbtxt"
        config.write_text(config.read_text().replace(ours, theirs))
        try:
            with triton_server(Path(folder)):
                return "loaded"
        except TritonStartError as error:
            return error.reasons[0]


def _tritonclient(server: TritonServer, model: TritonModel) -> Mapping[str, int]:
    command = [
        str(_HERE.parent / SIDE / "bin" / "python"),
        str(_HERE / "_triton_client_side.py"),
        server.url.removeprefix("http://"),
        model.name,
        model.input.name,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    answered: dict[str, int] = json.loads(ended.stdout)
    return answered


if __name__ == "__main__":
    measure().write(Path(sys.argv[1]))
