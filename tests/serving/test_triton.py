"""Models written for Triton, a client for its protocol, and, where it is there, the real server."""

import importlib.util
import json
import sys
import time
import types
from pathlib import Path

import httpx
import numpy as np
import pytest

from companion.models.onnx import OnnxModel, export_onnx
from companion.serving.triton import (
    BatchCounts,
    DynamicBatching,
    InferenceError,
    KServeClient,
    Load,
    Record,
    Tensor,
    TritonMissingError,
    TritonModel,
    TritonStartError,
    server,
    triton_server,
)
from companion.serving.triton import model as triton_model
from companion.serving.triton.server import TritonHome, find_triton

INPUT, OUTPUT = Tensor("features", 3), Tensor("probabilities", 2)


@pytest.fixture(scope="module")
def onnx_file():
    """A forest of three features as ONNX."""
    from companion.models.families import make_forest

    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3)).astype(np.float32)
    return export_onnx(make_forest(seed=0, trees=5).fit(X, (X[:, 0] > 0).astype(int)), X)


def answering(answer):
    """A client whose server is the function `answer(request)`."""
    return KServeClient("http://triton", transport=httpx.MockTransport(answer))


# ----- the repository ----------------------------------------------------------------------------


def test_a_model_is_written_with_its_configuration_and_files(tmp_path):
    model = TritonModel("fraud", INPUT, (OUTPUT,), files={"model.onnx": b"bytes"}, max_batch=64)
    folder = model.write(tmp_path)
    assert folder == tmp_path / "fraud"
    assert sorted(path.name for path in (folder / "1").iterdir()) == [
        "model.onnx",
        "model.py",
        "predictor.py",
    ]
    assert (folder / "config.pbtxt").read_text() == (
        'name: "fraud"\n'
        'backend: "python"\n'
        "max_batch_size: 64\n"
        'input [ { name: "features", data_type: TYPE_FP32, dims: [ 3 ] } ]\n'
        'output [ { name: "probabilities", data_type: TYPE_FP32, dims: [ 2 ] } ]\n'
        "instance_group [ { count: 1, kind: KIND_CPU } ]\n"
    )


def test_the_delay_of_dynamic_batching_is_written_in_microseconds():
    model = TritonModel("fraud", INPUT, (OUTPUT,), batching=DynamicBatching(0.005))
    assert model.config().endswith("dynamic_batching { max_queue_delay_microseconds: 5000 }\n")


@pytest.mark.parametrize(
    "make",
    [
        lambda: TritonModel("../fraud", INPUT, (OUTPUT,)),
        lambda: TritonModel("fraud", INPUT, (OUTPUT,), max_batch=0),
        lambda: TritonModel("fraud", INPUT, (OUTPUT,), instances=0),
        lambda: Tensor('"', 3),
        lambda: Tensor("features", 0),
        lambda: DynamicBatching(-1.0),
    ],
)
def test_what_triton_would_refuse_is_refused_before(make):
    with pytest.raises(ValueError):
        make()


# ----- inside the backend ------------------------------------------------------------------------


class FakeBackend(types.ModuleType):
    """Stands in for `triton_python_backend_utils`, which exists only inside Triton."""

    def __init__(self):
        super().__init__("triton_python_backend_utils")
        self.Tensor = lambda name, array: (name, array)
        self.InferenceResponse = dict

    @staticmethod
    def triton_string_to_numpy(kind):
        return {"TYPE_FP32": np.float32, "TYPE_INT64": np.int64}[kind]

    @staticmethod
    def get_input_tensor_by_name(request, name):
        return types.SimpleNamespace(as_numpy=lambda: request[name])


@pytest.fixture
def python_model(tmp_path, monkeypatch, onnx_file):
    """What Triton would make of a written model."""
    written = TritonModel("fraud", INPUT, (OUTPUT,), files={"model.onnx": onnx_file})
    folder = written.write(tmp_path)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", FakeBackend())
    monkeypatch.delitem(sys.modules, "predictor", raising=False)
    monkeypatch.setenv("TRITON_SITE", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    # From its place in the package, so that it counts as run; the copy is the same file.
    source = Path(triton_model.__file__).with_name("python_model") / "model.py"
    assert source.read_bytes() == (folder / "1" / "model.py").read_bytes()
    spec = importlib.util.spec_from_file_location("model_under_test", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.TritonPythonModel()
    config = {
        "input": [{"name": "features"}],
        "output": [{"name": "probabilities", "data_type": "TYPE_FP32"}],
    }
    made.initialize(
        {
            "model_repository": str(folder),
            "model_version": "1",
            "model_config": json.dumps(config),
        }
    )
    yield made
    sys.modules.pop("predictor", None)


def test_requests_are_asked_together_and_answered_apart(python_model, onnx_file):
    rng = np.random.default_rng(1)
    requests = [rng.normal(size=(n, 3)).astype(np.float32) for n in (1, 3, 2)]
    asked = []
    ask = python_model.predict
    python_model.predict = lambda rows: asked.append(len(rows)) or ask(rows)
    responses = python_model.execute([{"features": rows} for rows in requests])
    assert asked == [6]
    ours = OnnxModel(onnx_file)
    for rows, response in zip(requests, responses, strict=True):
        np.testing.assert_allclose(response["probabilities"], ours.predict_proba(rows), atol=1e-6)


def test_the_onnx_predictor_gives_what_our_own_reader_gives(tmp_path, onnx_file):
    from companion.serving.triton.python_model import onnx_predictor

    (tmp_path / "model.onnx").write_bytes(onnx_file)
    rows = np.random.default_rng(2).normal(size=(50, 3)).astype(np.float32)
    (probabilities,) = onnx_predictor.load(tmp_path)(rows)
    np.testing.assert_allclose(probabilities, OnnxModel(onnx_file).predict_proba(rows), atol=1e-6)


# ----- the client --------------------------------------------------------------------------------


def test_the_client_asks_and_reads_as_the_protocol_says():
    asked = []

    def answer(request):
        asked.append((request.url.path, json.loads(request.content)))
        tensor = {"name": "p", "datatype": "FP32", "shape": [2, 2], "data": [0.9, 0.1, 0.5, 0.5]}
        return httpx.Response(200, json={"outputs": [tensor]})

    with answering(answer) as client:
        outputs = client.infer("fraud", [[1, 2, 3], [4, 5, 6]], input="features")
    np.testing.assert_array_equal(outputs["p"], np.float32([[0.9, 0.1], [0.5, 0.5]]))
    tensor = {"name": "features", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}
    assert asked == [("/v2/models/fraud/infer", {"inputs": [tensor]})]


@pytest.mark.parametrize(
    ("response", "status", "reason"),
    [
        (httpx.Response(404, json={"error": "unknown model"}), 404, "unknown model"),
        (httpx.Response(500, json=[]), 500, "no reason given"),
        (httpx.Response(502, text="<html>"), 502, "no JSON"),
        (
            httpx.Response(
                200,
                json={"outputs": [{"name": "p", "datatype": "FP32", "shape": [1], "data": [0]}]},
            ),
            200,
            r"2 rows were answered with shape \[1\]",
        ),
        (
            httpx.Response(
                200,
                json={"outputs": [{"name": "p", "datatype": "BF16", "shape": [2], "data": []}]},
            ),
            200,
            "unknown type BF16",
        ),
    ],
)
def test_what_is_no_result_is_a_named_error(response, status, reason):
    with (
        answering(lambda request: response) as client,
        pytest.raises(InferenceError, match=reason) as raised,
    ):
        client.infer("fraud", np.zeros((2, 3)))
    assert (raised.value.model, raised.value.status) == ("fraud", status)


def test_the_mean_batch_is_rows_per_execution():
    stats = {"model_stats": [{"inference_count": "90", "execution_count": 4}]}
    with answering(lambda request: httpx.Response(200, json=stats)) as client:
        counts = client.counts("fraud")
    assert counts.since(BatchCounts(10, 2)).mean_batch == 40.0
    assert BatchCounts(0, 0).mean_batch == 0.0


# ----- the server --------------------------------------------------------------------------------


def test_without_triton_the_error_names_the_command(tmp_path):
    with pytest.raises(TritonMissingError, match="companion side triton") as raised:
        find_triton(tmp_path)
    assert raised.value.looked_for == tmp_path


def test_a_finished_environment_without_triton_in_it_is_none(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "set-up.json").write_text("{}")
    with pytest.raises(TritonMissingError):
        find_triton(tmp_path)


STAND_IN = """#!{python}
import http.server, sys

options = dict(option.lstrip("-").partition("=")[::2] for option in sys.argv[1:])
if {error!r}:
    print("E1123 21:57:34.8 1 cuda.cc:1] \\"CudaDriverHelper has not been initialized.\\"")
    print("E1123 21:57:34.8 1 model.cc:1] \\"" + {error!r} + "\\"", flush=True)
    sys.exit(1)


class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()


http.server.HTTPServer((options["http-address"], int(options["http-port"])), Ready).serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a program in Triton's place that is ready at once, or ends with an error."""

    def put(error=""):
        home = TritonHome(tmp_path / "site", tmp_path, "3.11")
        home.program.parent.mkdir(parents=True)
        (home.program.parents[1] / "backends" / "python").mkdir(parents=True)
        home.program.write_text(STAND_IN.format(python=sys.executable, error=error))
        home.program.chmod(0o755)
        monkeypatch.setattr(server, "find_triton", lambda side: home)

    return put


def test_the_server_is_there_inside_the_block_and_gone_after_it(stand_in, tmp_path):
    stand_in()
    with triton_server(tmp_path) as running:
        assert httpx.get(f"{running.url}/v2/health/ready", trust_env=False).status_code == 200
    assert running.process.pid is None


def test_a_start_that_fails_gives_the_reasons_without_the_noise(stand_in, tmp_path):
    stand_in("no such model")
    with pytest.raises(TritonStartError) as raised, triton_server(tmp_path):
        pytest.fail("it started")
    assert raised.value.reasons == ("no such model",)


def test_a_port_that_was_taken_is_tried_three_times(stand_in, tmp_path, monkeypatch):
    stand_in("Address already in use")
    ports = []
    monkeypatch.setattr(server, "free_port", lambda: ports.append(1) or 1)
    with pytest.raises(TritonStartError), triton_server(tmp_path):
        pytest.fail("it started")
    assert len(ports) == 3


# ----- the record --------------------------------------------------------------------------------


def test_a_record_reads_as_it_was_written(tmp_path):
    load = Load("forest", "5 ms", 64, 2000.0, 29.5, 42.1)
    record = Record("2026-11-23", "here", "triton", "wrk", (load,), {"GPU": "none"}, {"shared": 1})
    record.write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == record
    assert record.load_of("forest", "5 ms", 64) is load
    with pytest.raises(KeyError):
        record.load_of("forest", "5 ms", 1)


def test_the_record_of_the_checkout_says_when_and_where():
    record = Record.read()
    assert record.date
    assert record.machine
    assert record.load_of("forest", "none", 64).mean_batch == 1.0


# ----- the real server ---------------------------------------------------------------------------


@pytest.fixture
def triton():
    try:
        return find_triton()
    except TritonMissingError as error:
        pytest.skip(str(error))


def test_the_real_triton_answers_what_our_own_reader_answers(triton, tmp_path, onnx_file):
    model = TritonModel(
        "fraud", INPUT, (OUTPUT,), files={"model.onnx": onnx_file}, batching=DynamicBatching()
    )
    model.write(tmp_path)
    rows = np.random.default_rng(3).normal(size=(40, 3)).astype(np.float32)
    with triton_server(tmp_path) as running, KServeClient(running.url) as client:
        got = client.infer("fraud", rows, input="features")["probabilities"]
        counts = BatchCounts(0, 0)
        deadline = time.monotonic() + 10
        while counts.executions == 0 and time.monotonic() < deadline:
            counts = client.counts("fraud")
    np.testing.assert_allclose(got, OnnxModel(onnx_file).predict_proba(rows), atol=1e-6)
    assert counts == BatchCounts(rows=40, executions=1)
    assert running.process.pid is None


def test_a_model_that_does_not_load_is_told_with_the_servers_words(triton, tmp_path):
    folder = TritonModel("fraud", INPUT, (OUTPUT,)).write(tmp_path)
    config = folder / "config.pbtxt"
    config.write_text(config.read_text().replace('"python"', '"onnxruntime"'))
    with (
        pytest.raises(TritonStartError, match="unable to find backend library"),
        triton_server(tmp_path),
    ):
        pytest.fail("it started")
