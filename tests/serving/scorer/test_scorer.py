"""The scorer answers whatever is down, and says what it answered with."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from companion.features.defaults import FEATURES, UnknownFeatureError, online_features, windows_of
from companion.features.online import ForgottenError, OnlineWindows
from companion.models.costs import CostError, Costs, theory_threshold, theory_thresholds
from companion.resilience.breaker import CircuitBreaker
from companion.resilience.cache import MemoryHome, PredictionCache
from companion.serving.batching import BatcherClosedError, MicroBatcher, QueueFullError
from companion.serving.errors import ModelLoadError
from companion.serving.holder import ModelHolder
from companion.serving.preparing import HISTORY, MODEL, History, prepare
from companion.serving.schemas import Transaction
from companion.serving.scorer import (
    Features,
    NoProbabilityError,
    Scorer,
    ServedModel,
    Stakes,
    StateFeatures,
    batch_predictor,
    hold_artefact,
    hold_model,
)
from companion.serving.scorer.model import as_probability

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STAKES = Stakes(Costs(missed=5.0, missed_share=1.0, false_alarm=15.0), review=4.0)


class Always:
    """Answers every row with one probability, and counts how often it is asked."""

    def __init__(self, probability):
        self.probability = probability
        self.asked = 0

    def predict_proba(self, X):
        self.asked += 1
        if isinstance(self.probability, Exception):
            raise self.probability
        p = np.full(len(X), self.probability)
        return np.column_stack([1 - p, p])


def transaction(**changed):
    usual = {
        "transaction_id": 5,
        "time": NOON,
        "customer_id": 1,
        "merchant_id": 2,
        "category": "fuel",
        "amount": 100.0,
        "distance_km": 3.0,
        "device_id": 9,
        "is_online": True,
    }
    return Transaction(**{**usual, **changed})


def event(number, time):
    return {
        "transaction_id": number,
        "time": time,
        "customer_id": 1,
        "merchant_id": 2,
        "amount": 10.0 + number,
        "device_id": 9,
        "distance_km": 1.0,
        "is_online": False,
    }


@pytest.fixture
def state():
    state = OnlineWindows(windows_of())
    for number in range(3):
        state.observe(event(number, NOON - timedelta(hours=10 - number)))
    return state


def scored(scorer, **changed):
    return asyncio.run(scorer.score(transaction(**changed), "r-1"))


# ----- features ---------------------------------------------------------------------------------


def test_the_model_sees_the_features_of_the_definitions(state):
    one = transaction()

    seen = StateFeatures(state).read(one)

    row = {**event(5, NOON), "amount": 100.0, "distance_km": 3.0, "is_online": True}
    assert seen.row[0].tolist() == list(online_features(state, row).values())


def test_the_age_is_how_far_the_newest_event_lies_back(state):
    seen = StateFeatures(state, max_age=8 * 3600).read(transaction())

    assert (seen.age, seen.degraded) == (8 * 3600, False)


def test_features_that_are_too_old_are_told_as_such(state):
    assert StateFeatures(state, max_age=8 * 3600 - 1).read(transaction()).degraded


def test_a_transaction_before_the_newest_event_has_features_of_no_age(state):
    seen = StateFeatures(state).read(transaction(time=NOON - timedelta(hours=9)))

    assert seen.age == 0.0


def test_an_empty_state_knows_nothing_and_says_so():
    seen = StateFeatures(OnlineWindows(windows_of())).read(transaction())

    assert (seen.age, seen.degraded) == (None, True)


def test_a_max_age_that_lets_nothing_through_is_refused(state):
    with pytest.raises(ValueError, match="max_age"):
        StateFeatures(state, max_age=0)


def test_a_time_that_was_forgotten_costs_the_features_and_not_the_answer(state, caplog):
    state.forget(NOON - timedelta(hours=1))
    scorer = Scorer(hold_model(Always(0.2), version="v"), StateFeatures(state))

    score = scored(scorer, time=NOON - timedelta(days=1))

    assert (score.source, score.degraded, score.features_age_s) == ("model", True, None)
    assert isinstance(caplog.records[0].exc_info[1], ForgottenError)


class Remote:
    """A store elsewhere: what it says next, an error included."""

    def __init__(self, says):
        self.says = says
        self.asked = 0

    async def aread(self, transaction):
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def test_features_may_come_from_elsewhere():
    remote = Remote(Features(np.ones((1, len(FEATURES))), 2.5, False))

    score = scored(Scorer(hold_model(Always(0.2), version="v"), remote))

    assert (score.features_age_s, score.degraded) == (2.5, False)


def test_a_store_that_is_down_is_asked_no_more_and_every_answer_is_degraded(caplog):
    remote = Remote(ConnectionError("down"))
    breaker = CircuitBreaker(min_calls=3, failure_rate=0.5)
    scorer = Scorer(hold_model(Always(0.2), version="v"), remote, breaker=breaker)

    scores = [scored(scorer) for _ in range(20)]

    assert {(s.source, s.degraded) for s in scores} == {("model", True)}
    assert remote.asked == 3
    assert len(caplog.records) == 1


def test_the_log_is_told_when_features_come_again(caplog):
    caplog.set_level(logging.WARNING)
    remote = Remote(ConnectionError("down"))
    scorer = Scorer(hold_model(Always(0.2), version="v"), remote)
    scored(scorer)
    remote.says = Features(np.ones((1, len(FEATURES))), 0.0, False)

    assert not scored(scorer).degraded
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


# ----- the model --------------------------------------------------------------------------------


def test_an_answer_names_the_model_that_gave_it(state):
    score = scored(Scorer(hold_model(Always(0.25), version="v7"), StateFeatures(state)))

    assert (score.fraud_probability, score.model_version, score.source) == (0.25, "v7", "model")
    assert (score.transaction_id, score.request_id) == (5, "r-1")


@pytest.mark.parametrize("wrong", [RuntimeError("broken"), float("nan"), 1.5])
def test_without_a_model_the_base_rate_and_the_amount_decide(state, wrong, caplog):
    holder = ModelHolder(lambda: ServedModel(Always(wrong), version="v", features=FEATURES))
    scorer = Scorer(holder, StateFeatures(state), stakes=STAKES, base_rate=0.03)

    small, large = scored(scorer, amount=20.0), scored(scorer, amount=900.0)

    assert (small.source, small.degraded, small.model_version) == ("fallback", True, None)
    assert small.fraud_probability == 0.03
    assert (small.decision, large.decision) == ("approve", "review")
    assert len(caplog.records) == 1


def test_a_model_that_cannot_be_loaded_is_answered_for_and_asked_again(state):
    models = [OSError("gone"), Always(0.5)]

    def load():
        model = models.pop(0)
        if isinstance(model, Exception):
            raise model
        return ServedModel(model, version="v", features=FEATURES)

    scorer = Scorer(ModelHolder(load), StateFeatures(state))

    assert scored(scorer).source == "fallback"
    assert scored(scorer).source == "model"


def test_a_model_of_fewer_features_sees_only_those():
    class Seen:
        def predict_proba(self, X):
            self.X = X
            return np.array([[0.5, 0.5]])

    model = Seen()
    names = ("merchant_risk_30d", "log_amount")
    row = np.arange(len(FEATURES), dtype=float)[None, :]

    ServedModel(model, version="v", features=names).fraud(row)

    assert model.X.tolist() == [[11.0, 0.0]]


def test_a_model_of_features_that_are_not_made_here_is_refused():
    with pytest.raises(UnknownFeatureError):
        ServedModel(Always(0.5), version="v", features=("shoe_size",))


def test_a_rounding_beyond_the_ends_is_no_error_and_more_is():
    assert as_probability(np.float32(1.0000001)) == 1.0
    assert as_probability(-1e-9) == 0.0
    with pytest.raises(NoProbabilityError) as caught:
        as_probability(1.01)
    assert caught.value.value == 1.01


def test_a_base_rate_that_is_no_share_is_refused(state):
    with pytest.raises(ValueError, match="base_rate"):
        Scorer(hold_model(Always(0.5), version="v"), StateFeatures(state), base_rate=1.0)


def test_a_holder_gives_the_model_itself_or_says_that_there_is_none():
    assert hold_model(Always(0.5), version="v").current().version == "v"
    with pytest.raises(ModelLoadError):
        ModelHolder(lambda: 1 / 0).current()


# ----- many at once -----------------------------------------------------------------------------


class ByAmount:
    """As probable as the amount is large, up to 100; amounts above that it chokes on."""

    def __init__(self):
        self.calls = []

    def predict_proba(self, X):
        amounts = np.exp(X[:, 0])
        self.calls.append(len(amounts))
        if (amounts > 100.001).any():
            raise ValueError("too much")
        return np.column_stack([1 - amounts / 100, amounts / 100])


def scored_together(scorer, amounts):
    async def main():
        asked = [scorer.score(transaction(amount=a), f"r-{a:g}") for a in amounts]
        return await asyncio.gather(*asked)

    return asyncio.run(main())


def test_requests_of_one_turn_cost_one_call_and_get_their_own(state):
    model = ByAmount()
    scorer = Scorer(hold_model(model, version="v"), StateFeatures(state))

    scores = scored_together(scorer, [10.0, 30.0, 20.0])

    assert [s.fraud_probability for s in scores] == pytest.approx([0.1, 0.3, 0.2])
    assert [s.request_id for s in scores] == ["r-10", "r-30", "r-20"]
    assert model.calls == [1, 3]  # one to warm it up


def test_a_row_that_the_model_chokes_on_is_answered_for_alone(state, caplog):
    scorer = Scorer(hold_model(ByAmount(), version="v"), StateFeatures(state), base_rate=0.03)

    scores = scored_together(scorer, [10.0, 500.0, 20.0, 30.0])

    assert [s.source for s in scores] == ["model", "fallback", "model", "model"]
    assert [s.fraud_probability for s in scores] == pytest.approx([0.1, 0.03, 0.2, 0.3])


def test_without_a_model_all_of_a_turn_are_answered_for(state, caplog):
    scorer = Scorer(ModelHolder(lambda: 1 / 0), StateFeatures(state))

    scores = scored_together(scorer, [10.0, 20.0])

    assert {(s.source, s.model_version) for s in scores} == {("fallback", None)}
    assert len(caplog.records) == 1


def test_in_company_and_alone_the_answers_are_the_same_to_the_last_bit(tmp_path):
    prepared = prepare(tmp_path)
    history = History.of(pd.read_parquet(prepared / HISTORY))
    scorer = Scorer(hold_artefact(prepared / MODEL), StateFeatures(history.state))
    amounts = np.random.default_rng(4).lognormal(4, 2, 64).tolist()

    together = scored_together(scorer, amounts)
    alone = [score for amount in amounts for score in scored_together(scorer, [amount])]

    assert together == alone


# ----- cache and batcher ------------------------------------------------------------------------


def test_what_was_asked_before_comes_from_the_cache(state):
    model = Always(0.25)
    cache = PredictionCache(MemoryHome(), version="any", ttl=60.0)
    scorer = Scorer(hold_model(model, version="v"), StateFeatures(state), cache=cache)

    first, again, other = scored(scorer), scored(scorer), scored(scorer, amount=7.0)

    assert [s.source for s in (first, again, other)] == ["model", "cache", "model"]
    assert again.fraud_probability == first.fraud_probability
    assert again.model_version == "v"
    assert model.asked == 3  # once to warm it up


def test_the_next_model_finds_nothing_of_the_one_before(state):
    models = [("a", 0.2), ("b", 0.9)]

    def load():
        version, probability = models.pop(0)
        return ServedModel(Always(probability), version=version, features=FEATURES)

    holder = ModelHolder(load)
    cache = PredictionCache(MemoryHome(), version="any", ttl=60.0)
    scorer = Scorer(holder, StateFeatures(state), cache=cache)
    scored(scorer)
    holder.reload()

    score = scored(scorer)

    assert (score.fraud_probability, score.model_version, score.source) == (0.9, "b", "model")


def test_a_batch_gives_each_its_own_and_names_the_model(state):
    holder = hold_model(ByAmount(), version="v")

    async def main():
        async with MicroBatcher(batch_predictor(holder)) as batcher:
            scorer = Scorer(holder, StateFeatures(state), batcher=batcher)
            asked = [scorer.score(transaction(amount=a), "r") for a in (10.0, 20.0)]
            return await asyncio.gather(*asked)

    scores = asyncio.run(main())

    assert [s.fraud_probability for s in scores] == pytest.approx([0.1, 0.2])
    assert {s.model_version for s in scores} == {"v"}


def test_a_batch_is_cached_as_well(state):
    model = Always(0.25)
    holder = hold_model(model, version="v")

    async def main():
        async with MicroBatcher(batch_predictor(holder)) as batcher:
            cache = PredictionCache(MemoryHome(), version="any", ttl=60.0)
            scorer = Scorer(holder, StateFeatures(state), batcher=batcher, cache=cache)
            return [await scorer.score(transaction(), "r") for _ in range(2)]

    assert [s.source for s in asyncio.run(main())] == ["model", "cache"]


@pytest.mark.parametrize("error", [QueueFullError(5, 0.5), BatcherClosedError("closed")])
def test_a_full_queue_is_the_callers_to_hear(state, error):
    class Full:
        async def predict(self, row):
            raise error

    scorer = Scorer(hold_model(Always(0.5), version="v"), StateFeatures(state), batcher=Full())

    with pytest.raises(type(error)):
        scored(scorer)


# ----- decisions --------------------------------------------------------------------------------


def expected_costs(probability, amount, stakes):
    loss = stakes.costs.missed + stakes.costs.missed_share * amount
    return {
        "approve": probability * loss,
        "review": stakes.review,
        "decline": (1 - probability) * stakes.costs.false_alarm,
    }


@pytest.mark.parametrize("amount", [0.5, 20.0, 500.0])
def test_no_other_action_would_cost_less(amount):
    for probability in np.linspace(0, 1, 201):
        costs = expected_costs(probability, amount, STAKES)

        action, threshold = STAKES.decide(probability, amount)

        assert costs[action] <= min(costs.values()) + 1e-9
        assert (action == "approve") == (probability <= threshold)


def test_where_a_review_is_dear_the_threshold_is_that_of_two_actions():
    costs = Costs(missed=30.0, false_alarm=10.0)

    assert Stakes(costs, review=1e6).decide(0.5, 1.0).threshold == theory_threshold(costs)


def test_the_larger_the_amount_the_lower_the_threshold():
    dear = Stakes(STAKES.costs, review=1e6)

    found = [dear.decide(0.5, amount).threshold for amount in (10.0, 100.0)]

    assert found == theory_thresholds(STAKES.costs, [10.0, 100.0]).tolist()


@pytest.mark.parametrize("review", [0.0, -1.0, float("inf"), float("nan")])
def test_a_review_that_costs_nothing_is_refused(review):
    with pytest.raises(CostError):
        Stakes(STAKES.costs, review=review)


def test_where_nothing_can_be_lost_everything_is_approved():
    costs = Costs(missed=0.0, missed_share=1.0, false_alarm=10.0)

    assert Stakes(costs, review=1.0).decide(1.0, 0.0) == ("approve", 1.0)
