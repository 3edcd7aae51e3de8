"""A whole application in this process: a tiny model, a little history, one key."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest

from companion.features.defaults import FEATURES
from companion.serving.api import ScoringApp, Service, create_app
from companion.serving.keys import KeyRing, generate_key
from companion.serving.preparing import History
from companion.serving.scorer import Scorer, StateFeatures, hold_model
from companion.transactions import simulate

TRANSACTION: dict[str, Any] = {
    "transaction_id": 10_000,
    "time": "2026-03-01T12:30:00Z",
    "customer_id": 1,
    "merchant_id": 2,
    "category": "fuel",
    "amount": 80.5,
    "distance_km": 4.0,
    "device_id": 1,
    "is_online": True,
}
KEY, RECORD = generate_key("the tests")


class ByAmount:
    """Probability of fraud from the amount alone: a logistic curve over its logarithm."""

    def predict_proba(self, X):
        p = 1 / (1 + np.exp(4 - np.asarray(X, dtype=float)[:, FEATURES.index("log_amount")]))
        return np.column_stack([1 - p, p])


@dataclass
class Client:
    """Asks `app` in one event loop, from tests that know nothing of loops."""

    app: ScoringApp
    runner: asyncio.Runner
    http: httpx.AsyncClient

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self.runner.run(self.http.request(method, path, **request))

    def predict(self, **changed: Any) -> httpx.Response:
        return self.ask("POST", "/v2/predict", json={**TRANSACTION, **changed})

    def run(self, work: Any) -> Any:
        return self.runner.run(work)


@pytest.fixture(scope="session")
def history():
    return History.of(simulate(600, seed=3), ends=datetime(2026, 3, 1, 12, tzinfo=UTC))


@pytest.fixture
def transaction():
    return dict(TRANSACTION)


@pytest.fixture(scope="session")
def key():
    return KEY


@pytest.fixture(scope="session")
def ring():
    return KeyRing([RECORD])


@pytest.fixture
def scorer(history) -> Scorer:
    return Scorer(hold_model(ByAmount(), version="v-test"), StateFeatures(history.state))


@pytest.fixture
def open_client() -> Any:
    """`open_client(service)` gives a `Client` whose application runs until the test ends."""
    opened: list[tuple[asyncio.Runner, Any]] = []

    def open_(service: Service, **settings: Any) -> Client:
        runner = asyncio.Runner()
        app = create_app(service)
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        opened.append((runner, lifespan))
        headers = {"X-API-Key": KEY, **settings.pop("headers", {})}
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        http = httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)
        return Client(app, runner, http)

    yield open_
    for runner, lifespan in opened:
        runner.run(lifespan.__aexit__(None, None, None))
        runner.close()


@pytest.fixture
def client(open_client: Callable[..., Client], scorer, history, ring) -> Client:
    return open_client(Service(scorer, keys=ring, background=history.background))
