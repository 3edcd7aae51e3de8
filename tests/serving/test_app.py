"""The service over HTTP: strict at the door, honest about readiness."""

import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys

import httpx
import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from companion.features import FEATURES, feature_matrix
from companion.serving import ModelHolder
from companion.serving.app import MODEL_PATH, MODEL_SHA256, create_app, load_once_app
from companion.transactions import simulate

ROW = dict.fromkeys(FEATURES, 0.5)


class Recorder:
    """A model that keeps the table it was given."""

    def predict_proba(self, X):
        self.seen = X
        return np.tile([0.75, 0.25], (len(X), 1))


def exchange(app, *requests):
    """Start `app`, send (method, path, content) one after the other, stop it; the responses."""

    async def run():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            headers = {"content-type": "application/json"}
            return [
                await client.request(method, path, content=content, headers=headers)
                for method, path, content in requests
            ]

    return asyncio.run(run())


def predict(row, holder=None):
    content = row if isinstance(row, bytes) else json.dumps(row).encode()
    app = create_app(holder or ModelHolder(Recorder))
    (response,) = exchange(app, ("POST", "/predict", content))
    return response


def test_a_row_is_answered_with_the_probability_of_fraud():
    response = predict(ROW)
    assert response.status_code == 200
    assert response.json() == {"fraud_probability": 0.25}


def test_the_model_sees_one_named_row_in_the_order_of_the_features():
    model = Recorder()
    values = {name: float(place) for place, name in enumerate(FEATURES)}
    predict(dict(reversed(values.items())), ModelHolder(lambda: model))
    assert tuple(model.seen.columns) == FEATURES
    assert model.seen.iloc[0].tolist() == list(values.values())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"log_amount": "0.5"}, "float_type"),
        ({"log_amount": True}, "float_type"),
        ({"log_amount": None}, "float_type"),
        ({"log_amount": [0.5]}, "float_type"),
        ({"log_amount": float("nan")}, "finite_number"),
        ({"log_amount": float("inf")}, "finite_number"),
        ({"is_fraud": 1.0}, "extra_forbidden"),
    ],
)
def test_anything_but_finite_numbers_under_known_names_is_refused(change, problem):
    response = predict(ROW | change)
    assert response.status_code == 422
    (detail,) = response.json()["detail"]
    assert detail["type"] == problem
    assert detail["loc"] == ["body", next(iter(change))]
    assert set(detail) == {"type", "loc", "msg"}


def test_a_missing_feature_is_named():
    response = predict(dict.fromkeys(FEATURES[1:], 0.5))
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", FEATURES[0]]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b'{"log_amount": 1}x'])
def test_what_is_no_object_is_refused(content):
    assert predict(content).status_code == 422


def test_the_model_is_loaded_while_the_service_starts_and_once():
    loads = []
    holder = ModelHolder(lambda: loads.append(1) or Recorder())
    request = ("POST", "/predict", json.dumps(ROW).encode())
    readiness, *answers = exchange(
        create_app(holder), ("GET", "/health/ready", b""), *[request] * 5
    )
    assert readiness.status_code == 200
    assert readiness.json() == {"ready": True, "version": "1", "generation": 1}
    assert [answer.status_code for answer in answers] == [200] * 5
    assert len(loads) == 1


def test_a_service_without_a_model_starts_and_says_that_it_is_not_ready(caplog):
    def broken():
        raise OSError("/secret/path is gone")

    readiness, answer = exchange(
        create_app(ModelHolder(broken)),
        ("GET", "/health/ready", b""),
        ("POST", "/predict", json.dumps(ROW).encode()),
    )
    assert readiness.status_code == answer.status_code == 503
    assert readiness.json() == {"ready": False, "version": None, "generation": 0}
    assert "secret" not in answer.text
    assert "/secret/path is gone" in caplog.text


def test_a_model_that_comes_later_makes_the_service_ready():
    outcomes = iter([OSError("not yet"), Recorder()])

    def late():
        outcome = next(outcomes)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    answer, readiness = exchange(
        create_app(ModelHolder(late)),
        ("POST", "/predict", json.dumps(ROW).encode()),
        ("GET", "/health/ready", b""),
    )
    assert answer.status_code == 200
    assert readiness.status_code == 200


@pytest.fixture(scope="module")
def stored_model(tmp_path_factory):
    X, y = feature_matrix(simulate(1000, seed=0))
    model = LogisticRegression(max_iter=500).fit(X, y)
    path = tmp_path_factory.mktemp("model") / "model.joblib"
    joblib.dump(model, path)
    environment = {
        MODEL_PATH: str(path),
        MODEL_SHA256: hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    expected = model.predict_proba(X.iloc[:1] * 0 + 0.5)[0, 1]
    return environment, expected


def test_the_factory_says_which_setting_is_missing(monkeypatch):
    monkeypatch.delenv(MODEL_PATH, raising=False)
    monkeypatch.setenv(MODEL_SHA256, "0" * 64)
    with pytest.raises(ValueError, match=MODEL_PATH):
        load_once_app()


def test_the_factory_serves_the_stored_model(monkeypatch, stored_model):
    environment, expected = stored_model
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (response,) = exchange(load_once_app(), ("POST", "/predict", json.dumps(ROW).encode()))
    assert response.json()["fraud_probability"] == pytest.approx(expected)


def test_the_factory_refuses_a_file_with_another_checksum(monkeypatch, stored_model):
    monkeypatch.setenv(MODEL_PATH, stored_model[0][MODEL_PATH])
    monkeypatch.setenv(MODEL_SHA256, "0" * 64)
    (response,) = exchange(load_once_app(), ("GET", "/health/ready", b""))
    assert response.status_code == 503


def test_uvicorn_serves_the_factory_over_real_http(stored_model):
    environment, expected = stored_model
    command = [sys.executable, "-m", "uvicorn", "--factory", "--port", "0"]
    with subprocess.Popen(
        [*command, "companion.serving.app:load_once_app"],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            lines = iter(server.stderr.readline, "")
            address = next(m[1] for m in (re.search(r"(http://\S+)", x) for x in lines) if m)
            response = httpx.post(f"{address}/predict", json=ROW, timeout=30)
        finally:
            server.terminate()
    assert response.json()["fraud_probability"] == pytest.approx(expected)
