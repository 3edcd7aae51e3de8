"""The environment makes the service that it describes, or names the variable that is wrong."""

import hashlib
from datetime import UTC, datetime

import httpx
import numpy as np
import pandas as pd
import pytest
from onnx import TensorProto, helper

from companion.features.defaults import FEATURES
from companion.models.onnx.graph import INPUT, OUTPUT
from companion.models.onnx.model import FEATURES_KEY
from companion.resilience.limiting import Limit
from companion.serving.api import SettingError, Settings, app_from_environment, service_of
from companion.serving.jobs.celery import BrokerUnavailableError
from companion.serving.keys import KeyRing, generate_key
from companion.serving.scorer.stored import StoredFeatures
from companion.serving.tracing import AccessLines
from companion.transactions import simulate

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An ONNX model by hand: softmax of two columns of weights."""
    width = len(FEATURES)
    weights = np.zeros((width, 2), dtype=np.float32)
    weights[0, 1] = 0.1
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [INPUT, "w"], ["scores"]),
            helper.make_node("Softmax", ["scores"], [OUTPUT], axis=1),
        ],
        "by hand",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.tobytes(), raw=True)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    entry = made.metadata_props.add()
    entry.key, entry.value = FEATURES_KEY, str(list(FEATURES)).replace("'", '"')
    file = tmp_path_factory.mktemp("model") / "model.onnx"
    file.write_bytes(made.SerializeToString())
    return file


@pytest.fixture
def environment(model):
    return {
        "COMPANION_MODEL": str(model),
        "COMPANION_MODEL_SHA256": hashlib.sha256(model.read_bytes()).hexdigest(),
    }


def test_a_model_is_all_that_is_needed(environment):
    settings = Settings.of({**environment, "COMPANION_KEYS": "", "HOME": "/"})

    service = service_of(settings)

    assert service.keys is service.limit is service.jobs is service.background is None
    assert service.scorer.holder.load().ready


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"COMPANION_MODEL": ""}, "COMPANION_MODEL"),
        ({"COMPANION_MODEL_SHA256": ""}, "COMPANION_MODEL_SHA256"),
        ({"COMPANION_RATE": "many"}, "COMPANION_RATE"),
        ({"COMPANION_RATE": "0"}, "COMPANION_RATE"),
        ({"COMPANION_BURST": "inf"}, "COMPANION_BURST"),
        ({"COMPANION_MAX_AGE": "-1"}, "COMPANION_MAX_AGE"),
        ({"COMPANION_CACHE_URL": "file:///x"}, "COMPANION_CACHE_URL"),
        ({"COMPANION_LIMITS_URL": "http://x"}, "COMPANION_LIMITS_URL"),
        ({"COMPANION_JOBS_URL": "mysql://x"}, "COMPANION_JOBS_URL"),
        ({"COMPANION_TRUSTED_PROXIES": "10.0.0.0/99"}, "COMPANION_TRUSTED_PROXIES"),
        ({"COMPANION_FEATURES_URL": "redis://x"}, "COMPANION_FEATURES_FOLDER"),
        (
            {"COMPANION_FEATURES_URL": "ftp://x", "COMPANION_FEATURES_FOLDER": "/nowhere"},
            "COMPANION_FEATURES_URL",
        ),
    ],
)
def test_what_cannot_be_meant_is_named(environment, changed, name):
    with pytest.raises(SettingError) as caught:
        service_of(Settings.of({**environment, **changed}))

    assert caught.value.name == name


def test_all_parts_can_be_asked_for(environment, tmp_path):
    key, record = generate_key("x")
    KeyRing([record]).save(tmp_path / "keys.json")
    history = simulate(100, seed=1, fraud_rate=0.05)
    history.to_parquet(tmp_path / "history.parquet")
    settings = Settings.of(
        environment
        | {
            "COMPANION_HISTORY": str(tmp_path / "history.parquet"),
            "COMPANION_HISTORY_ENDS": "now",
            "COMPANION_KEYS": str(tmp_path / "keys.json"),
            "COMPANION_RATE": "20",
            "COMPANION_CACHE_URL": "memory:",
            "COMPANION_LIMITS_URL": "redis://127.0.0.1:1/0",
            "COMPANION_JOBS_URL": f"sqlite:///{tmp_path}/jobs.db",
            "COMPANION_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
            "COMPANION_ACCESS_LOG": "1",
        }
    )

    service = service_of(settings, clock=lambda: NOW)

    service.jobs.close()
    assert service.limit == Limit(20.0, 20.0)
    assert service.keys.owner(key.encode()) == record
    assert service.scorer.cache is not None
    assert isinstance(service.access, AccessLines)
    state = service.scorer.source.state
    assert pd.Timestamp(state.latest_us, unit="us", tz="UTC") == pd.Timestamp(NOW)


def test_features_may_come_from_a_store(environment, tmp_path):
    settings = Settings.of(
        environment
        | {
            "COMPANION_FEATURES_URL": "memory:",
            "COMPANION_FEATURES_FOLDER": str(tmp_path),
        }
    )

    assert isinstance(service_of(settings).scorer.source, StoredFeatures)


def test_celery_is_told_of_accepted_jobs(environment):
    job = object()  # never looked at: there is no Redis at that port
    quiet = service_of(Settings.of(environment))
    told = service_of(Settings.of({**environment, "COMPANION_CELERY_URL": "redis://127.0.0.1:1"}))

    quiet.on_accepted(job)
    with pytest.raises(BrokerUnavailableError):
        told.on_accepted(job)


def test_a_folder_that_is_no_artefact_starts_and_says_that_it_is_not_ready(tmp_path):
    service = service_of(Settings.of({"COMPANION_MODEL": str(tmp_path)}))

    assert not service.scorer.holder.status().ready
    assert service.scorer.base_rate == 0.01


def test_what_was_loaded_is_taken_out_of_the_collectors_sight(environment, monkeypatch):
    done = []
    monkeypatch.setattr("gc.collect", lambda: done.append("collect"))
    monkeypatch.setattr("gc.freeze", lambda: done.append("freeze"))

    service_of(Settings.of(environment)).on_loaded()

    assert done == ["collect", "freeze"]


def test_the_factory_reads_the_environment(environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    levels = []
    monkeypatch.setattr(
        "companion.serving.api.environment.json_logging", lambda level: levels.append(level)
    )

    app = app_from_environment()

    assert levels == ["WARNING"]
    assert httpx.ASGITransport(app)
    assert "/v2/predict" in app.openapi()["paths"]
