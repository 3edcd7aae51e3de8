"""The whole service beside serving frameworks with the same model, one worker each, in one run.

Ours is what `companion serve` starts, asked at `/v2/predict`: key, limit, request id, metrics,
validation, features from the customer's past, ONNX, decision. The others get the twelve features
ready-made and answer a probability from the same ONNX file; each runs in an environment of its own
(`companion side NAME`), and where that is not there a row says so. *Received* is the pattern that
people memorise, the same forest unpickled and asked in a `def` route. *Bare* is a FastAPI route
that answers a constant and has no model.

Every server is asked for the same rows first, and has to answer the same. Ratios are to bare.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import joblib
import pandas as pd

from benchmarks._http_load import HttpLoad, Target, interleaved
from companion.cli.side import side_environment
from companion.features import feature_matrix
from companion.instruments import Row, ServerNotReadyError, SubprocessServer, free_port
from companion.models.artefact_metadata import TrainingRecord
from companion.models.artefacts import save_artefact
from companion.models.families import make_forest
from companion.serving.keys import KeyRing, generate_key
from companion.study.workbook import Workbook
from companion.transactions import simulate

TITLE = "The service beside serving frameworks"
LIBRARIES = ("fastapi", "httptools", "msgspec", "onnxruntime", "uvicorn", "uvloop")

_HERE = Path(__file__).parent
_ROWS, _PAST, _ASKED = 12_000, 10_000, 200
_SECONDS, _ROUNDS = 3.0, 3
_STARTING = 120.0
_TOLERANCE = 1e-5
_QUIET = {
    "BENTOML_DO_NOT_TRACK": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # or it writes a token into the home folder
}
_FRAMEWORKS = {
    "BentoML": "bentoml",
    "LitServe": "litserve",
    "MLServer": "mlserver",
    "Ray Serve": "ray_serve",
}


@dataclass(frozen=True)
class _World:
    """What all servers share: the files in `folder`, the rows to ask for, and the right answers."""

    folder: Path
    key: str
    transactions: Sequence[bytes]
    features: Sequence[Sequence[float]]
    probabilities: Sequence[float]

    def bodies(self) -> list[bytes]:
        return [json.dumps({"features": list(row)}).encode() for row in self.features]

    def tensors(self) -> list[bytes]:
        """The rows in the Open Inference Protocol."""
        kind = {"name": "features", "shape": [1, len(self.features[0])], "datatype": "FP64"}
        return [json.dumps({"inputs": [{**kind, "data": list(r)}]}).encode() for r in self.features]


@dataclass(frozen=True)
class _Contender:
    command: Sequence[str]
    target: Target
    ready: str
    env: dict[str, str] = field(default_factory=dict)


def run() -> list[Row]:
    with TemporaryDirectory() as name, ExitStack() as stack:
        world = _world(Path(name))
        contenders, missing = {"ours, /v2/predict": _ours(world), **_plain(world)}, []
        for contender in contenders.values():
            stack.enter_context(_server(contender, world))
        for framework, side in _FRAMEWORKS.items():
            environment = side_environment(side, Workbook.find().root)
            if not environment.is_current():
                missing.append(_missing(framework, f"not set up: 'companion side {side}'"))
                continue
            contender = _framework(side, environment.python, world)
            try:
                stack.enter_context(_server(contender, world))
            except ServerNotReadyError as error:  # one that does not start is no reason to stop
                last = error.log_tail.splitlines()[-1:] or ["it wrote nothing"]
                missing.append(_missing(framework, f"did not start: {last[0]:.80}"))
                continue
            contenders[f"{framework} {_version(environment.pins)}"] = contender
        targets = {name: contender.target for name, contender in contenders.items()}
        for name, target in targets.items():
            if target.bodies:
                _ask(name, target, world.probabilities)
        return [*missing, *_measured(targets)]


def _server(contender: _Contender, world: _World) -> SubprocessServer:
    return SubprocessServer(
        contender.command,
        contender.ready,
        env={**_QUIET, **contender.env},
        cwd=world.folder,
        timeout=_STARTING,
    )


def _missing(framework: str, why: str) -> Row:
    return Row(framework, why, math.nan, "")


class WrongAnswerError(Exception):
    """A server answered something else than the model, so its speed says nothing."""


def _ask(name: str, target: Target, expected: Sequence[float]) -> None:
    """Raise `WrongAnswerError` unless the server scores the first rows as the model does."""
    # Ours takes in what it has been asked only where a stream feeds it: the first row is as of the
    # end of the past, the later ones are not.
    rows = 1 if name.startswith("ours") else 3
    headers = {"content-type": "application/json", **target.headers}
    with httpx.Client(trust_env=False, headers=headers, timeout=30) as client:
        for body, right in zip(target.bodies[:rows], expected, strict=False):
            answer = client.post(target.url, content=body)
            if abs(_probability(answer) - right) > _TOLERANCE:
                raise WrongAnswerError(f"{name} said {answer.text!r}, the model says {right}")


def _probability(answer: httpx.Response) -> float:
    """The probability of fraud in an answer; infinite where there is none."""
    if answer.is_error:
        return math.inf
    said = answer.json()
    probability = said["outputs"][0]["data"][0] if "outputs" in said else said["fraud_probability"]
    return float(probability)


def _measured(targets: dict[str, Target]) -> Iterator[Row]:
    for connections in (16, 64):
        loads = interleaved(targets, connections=connections, seconds=_SECONDS, rounds=_ROUNDS)
        bare = loads["bare FastAPI route"]
        what = f"{connections} connections"
        for name, load in loads.items():
            target = "at least 0.8 × bare" if name.startswith("ours") else ""
            ratio = load.requests_per_s / bare.requests_per_s
            yield Row(_what(what, load), name, load.requests_per_s, "requests/s", ratio, target)
        for name, load in loads.items():
            target = "at most 2 × bare" if name.startswith("ours") else ""
            yield Row(f"{what}, p99", name, load.p99_ms, "ms", load.p99_ms / bare.p99_ms, target)
        theirs = [load.requests_per_s for name, load in loads.items() if _is_framework(name)]
        if theirs:
            times = loads["ours, /v2/predict"].requests_per_s / max(theirs)
            yield Row(
                f"{what}, ours to the best framework", "ours", times, "×", None, "3 × or more"
            )


def _version(pins: Path) -> str:
    """The version that the first line of the pins names, as in `# LitServe 0.2.19 and all …`."""
    found = re.search(r"\d+(\.\d+)+", pins.read_text(encoding="utf-8").splitlines()[0])
    return found[0] if found else ""


def _is_framework(name: str) -> bool:
    return name.startswith(tuple(_FRAMEWORKS))


def _what(what: str, load: HttpLoad) -> str:
    failed = sum(load.errors.values())
    return f"{what}, {failed} failed" if failed else what


def _world(folder: Path) -> _World:
    table = simulate(_ROWS, seed=7)
    X, y = feature_matrix(table)
    past, asked = slice(0, _PAST), slice(_PAST, _PAST + _ASKED)
    forest = make_forest(seed=7).fit(X.iloc[past], y.iloc[past])
    window = tuple(time.to_pydatetime() for time in table["time"].iloc[[0, _PAST]])
    record = TrainingRecord("forest", "default twelve", window, 7, {})
    save_artefact(folder / "model", forest, X.iloc[:500], record)
    joblib.dump(forest, folder / "forest.joblib")
    # In a folder of their own: beside the benchmarks, `import onnx` would find the one called so.
    (folder / "servers").mkdir()
    for module in [_HERE / "_plain_servers.py", *_HERE.glob("_*_side.py")]:
        shutil.copy(module, folder / "servers")
    table.iloc[past].to_parquet(folder / "history.parquet", index=False)
    key, owner = generate_key("benchmark")
    KeyRing([owner]).save(folder / "keys.json")
    return _World(
        folder,
        key,
        _as_json(table.iloc[asked]),
        X.iloc[asked].to_numpy().tolist(),
        forest.predict_proba(X.iloc[asked])[:, 1].tolist(),
    )


def _as_json(table: pd.DataFrame) -> list[bytes]:
    kept = ["transaction_id", "time", "customer_id", "merchant_id", "category", "amount"]
    kept += ["distance_km", "device_id", "is_online"]
    rows = table[kept].assign(time=table["time"].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    return [json.dumps(row).encode() for row in rows.to_dict("records")]


def _ours(world: _World) -> _Contender:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = f"--port {port} --model model --history history.parquet --keys keys.json --rate 1e6"
    return _Contender(
        [str(Path(sys.executable).parent / "companion"), "serve", *options.split()],
        Target(f"{url}/v2/predict", world.transactions, {"X-API-Key": world.key}),
        f"{url}/health/ready",
    )


def _plain(world: _World) -> dict[str, _Contender]:
    contenders = {}
    for name, factory in (("bare FastAPI route", "bare"), ("received: joblib, def", "received")):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        options = f"--factory --app-dir servers --port {port} --log-level error --no-access-log"
        contenders[name] = _Contender(
            [sys.executable, "-m", "uvicorn", f"_plain_servers:{factory}", *options.split()],
            Target(f"{url}/score", world.bodies() if factory == "received" else []),
            f"{url}/openapi.json",
            {"SCORING_FOREST": str(world.folder / "forest.joblib")},
        )
    return contenders


def _framework(side: str, python: Path, world: _World) -> _Contender:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    paths = {
        "bentoml": ("/predict", "/readyz"),
        "litserve": ("/predict", "/health"),
        "mlserver": ("/v2/models/scoring/infer", "/v2/health/ready"),
        "ray_serve": ("/", "/-/healthz"),
    }
    command = [str(python), f"servers/_{side}_side.py", str(port)]
    if side == "bentoml":
        options = f"--host 127.0.0.1 --port {port} --working-dir servers"
        command = [str(python), "-m", "bentoml", "serve", "_bentoml_side:Scoring", *options.split()]
    score, ready = paths[side]
    bodies = world.tensors() if side == "mlserver" else world.bodies()
    return _Contender(
        command,
        Target(f"{url}{score}", bodies),
        f"{url}{ready}",
        {
            "SCORING_MODEL": str(world.folder / "model" / "model.onnx"),
            "PYTHONPATH": str(world.folder / "servers"),
        },
    )
