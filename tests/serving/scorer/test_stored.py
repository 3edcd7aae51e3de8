"""Features that come from a store are those of the windows at the time when they were written."""

import asyncio
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from companion.features.defaults import windows_of
from companion.features.online import ForgottenError, OnlineWindows
from companion.features.store import FeatureStore
from companion.features.store.errors import OnlineStoreUnavailableError
from companion.features.store.homes import open_home
from companion.instruments import free_port
from companion.serving.preparing import History
from companion.serving.schemas import Transaction
from companion.serving.scorer import Scorer, StateFeatures, hold_model
from companion.serving.scorer.stored import StoredFeatures, publish
from companion.transactions import simulate

END = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def history():
    return History.of(simulate(400, seed=3), ends=END)


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


@pytest.fixture
def stored(store, history):
    publish(store, history.state, END)
    source = StoredFeatures(store, max_age=60.0)
    yield source
    source.close()


def transaction(history, *, seconds=0.0, **changed):
    latest = {name: value for name, value in history.latest.items() if name != "time"}
    return Transaction(
        **{**latest, "transaction_id": 10**9, "time": END + timedelta(seconds=seconds), **changed}
    )


def read(source, one):
    return asyncio.run(source.aread(one))


def test_right_after_publishing_the_store_says_what_the_windows_say(stored, history):
    customers = {key[0] for key in history.state.pasts(("customer_id",))}
    exact = StateFeatures(history.state)

    for customer in customers:
        one = transaction(history, customer_id=customer)
        np.testing.assert_allclose(read(stored, one).row, exact.read(one).row, rtol=1e-12)


def test_the_time_since_the_last_purchase_goes_on_in_the_store(stored, history):
    one = transaction(history, seconds=30)

    found = read(stored, one)

    np.testing.assert_allclose(found.row, StateFeatures(history.state).read(one).row, rtol=1e-12)
    assert (found.age, found.degraded) == (30.0, False)


def test_what_is_older_than_it_may_be_is_degraded(stored, history):
    assert read(stored, transaction(history, seconds=61)).degraded


def test_somebody_whom_nobody_knows_is_a_stranger_and_degraded(stored, history):
    one = transaction(history, customer_id=10**6, merchant_id=10**6)

    found = read(stored, one)

    assert (found.age, found.degraded) == (None, True)
    np.testing.assert_allclose(
        found.row, StateFeatures(OnlineWindows(windows_of())).read(one).row, rtol=1e-12
    )


def test_publishing_again_moves_only_what_is_newer(store, history):
    first = publish(store, history.state, END)

    assert first > 0
    assert publish(store, history.state, END) == 0


def test_an_empty_state_publishes_nothing(store):
    assert publish(store, OnlineWindows(windows_of()), END) == 0


def test_a_moment_without_a_zone_is_refused(store, history):
    with pytest.raises(ValueError, match="zone"):
        publish(store, history.state, datetime(2026, 3, 1))


def test_a_moment_that_was_forgotten_is_refused(store):
    state = OnlineWindows(windows_of())
    state.forget(END)

    with pytest.raises(ForgottenError):
        publish(store, state, END - timedelta(days=1))


def test_a_max_age_that_lets_nothing_through_is_refused(store):
    with pytest.raises(ValueError, match="max_age"):
        StoredFeatures(store, max_age=0.0)


def test_a_redis_that_is_not_there_costs_the_features_and_soon_not_even_time(tmp_path, history):
    home = open_home(f"redis://127.0.0.1:{free_port()}/0")
    source = StoredFeatures(FeatureStore(tmp_path / "store", home=home))
    one = transaction(history)
    scorer = Scorer(hold_model(Half(), version="v"), source)

    with pytest.raises(OnlineStoreUnavailableError):
        read(source, one)

    async def many():
        return [await scorer.score(one, "r") for _ in range(20)]

    scores = asyncio.run(many())
    source.close()
    assert {(score.source, score.degraded) for score in scores} == {("model", True)}
    assert scorer.breaker.snapshot().retry_after > 0


class Half:
    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)
