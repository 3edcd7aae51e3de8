"""From a transaction to a decision, whatever else is down.

    features  →  cache  →  model  →  decision
    (breaker)                        (costs)

Somebody stands at a till, so the one answer that is never given is none. Each part that can fail
has something to stand in for it, and the answer says that it did:

- features that do not come (the store is down, slow, or has been refused by the breaker) are those
  of a stranger: `degraded`;
- a cache that is down costs nothing but the computing;
- a model that is not there or fails is the base rate, and the amount decides: `source="fallback"`.

What is refused is only what could not be answered in time: a full queue (`QueueFullError`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from numpy.typing import NDArray

from companion.resilience.breaker import CircuitBreaker
from companion.resilience.cache import PredictionCache
from companion.resilience.outcomes import CircuitOpenError
from companion.serving.batching import BatcherClosedError, Cohort, MicroBatcher, QueueFullError
from companion.serving.batching.answering import Failed, answers
from companion.serving.holder import ModelHolder
from companion.serving.schemas import Score, Source, Transaction
from companion.serving.scorer.decisions import USUAL_STAKES, Stakes
from companion.serving.scorer.features import (
    Features,
    FeatureSource,
    LocalFeatures,
    NoHistory,
    RemoteFeatures,
)
from companion.serving.scorer.model import ServedModel, as_probability

_LOG = logging.getLogger(__name__)


class Predicted(NamedTuple):
    """A probability of fraud, and whose it is."""

    probability: float
    version: str
    source: Source


class Scorer:
    """Scores one transaction at a time, many at once; belongs to one event loop.

    Args:
        holder: the model, which may be exchanged under way.
        source: where features come from.
        stakes: what mistakes cost.
        base_rate: the share of frauds among all transactions, for when there is no model.
        breaker: guards `source`; `None` for one of the usual settings. For a source in this process
            it never has anything to do.
        cache: keeps predictions; worth it for models slower than a look-up.
        batcher: predicts in company with other requests, by `batch_predictor(holder)`; without it,
            the model is asked on the event loop, which is right below some 100 µs.

    Raises:
        ValueError: a base rate that is not between 0 and 1.
    """

    def __init__(
        self,
        holder: ModelHolder[ServedModel],
        source: FeatureSource,
        *,
        stakes: Stakes = USUAL_STAKES,
        base_rate: float = 0.01,
        breaker: CircuitBreaker | None = None,
        cache: PredictionCache | None = None,
        batcher: MicroBatcher | None = None,
    ) -> None:
        if not 0 < base_rate < 1:
            raise ValueError(f"base_rate is a share between 0 and 1; got {base_rate}")
        self.holder = holder
        self.source = source
        self._local = source if isinstance(source, LocalFeatures) else None
        self._remote = cast(RemoteFeatures, source)
        self.stakes = stakes
        self.base_rate = base_rate
        self.breaker = breaker or CircuitBreaker(name="features", open_for=5.0)
        self.cache = cache
        self.batcher = batcher
        self._stranger = NoHistory()
        self._features_trouble = _Trouble("features")
        self._model_trouble = _Trouble("the model")
        self._predict = batch_predictor(holder)
        # Nothing to wait for between the transaction and its score: all of a turn go together.
        at_once = self._local is not None and cache is None and batcher is None
        self._cohort = Cohort(self._score_all) if at_once else None

    async def score(self, transaction: Transaction, request_id: str) -> Score:
        """The answer for `transaction`.

        Raises nothing but `QueueFullError` and, while the service stops, `BatcherClosedError`.
        """
        if self._cohort is not None:
            return await self._cohort.ask((transaction, request_id))
        features = await self.features(transaction)
        predicted: Predicted | Exception
        try:
            predicted = await self._ask(features)
        except (QueueFullError, BatcherClosedError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
            predicted = error
        return self._answer(transaction, request_id, features, predicted)

    def _score_all(self, asked: list[tuple[Transaction, str]]) -> list[Score]:
        seen = [self._features_here(transaction) for transaction, _ in asked]
        return [
            self._answer(transaction, request_id, features, predicted)
            for (transaction, request_id), features, predicted in zip(
                asked, seen, self._ask_for_all(seen), strict=True
            )
        ]

    def _answer(
        self,
        transaction: Transaction,
        request_id: str,
        features: Features,
        predicted: Predicted | Exception,
    ) -> Score:
        probability = self.base_rate
        version: str | None = None
        source: Source = "fallback"
        if isinstance(predicted, Exception):
            self._model_trouble.told(predicted)
        else:
            self._model_trouble.is_over()
            probability, version, source = predicted
        decision = self.stakes.decide(probability, transaction.amount)
        return Score(
            transaction.transaction_id,
            probability,
            decision.action,
            decision.threshold,
            version,
            source,
            features.degraded or source == "fallback",
            features.age,
            request_id,
        )

    async def features(self, transaction: Transaction) -> Features:
        """What is known of `transaction`; those of a stranger where the source fails."""
        if self._local is not None:
            return self._features_here(transaction)
        try:
            features = await self.breaker.acall(self._remote.aread, transaction)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
            return self._without(transaction, error)
        self._features_trouble.is_over()
        return features

    def _features_here(self, transaction: Transaction) -> Features:
        assert self._local is not None
        try:
            features = self.breaker.call(self._local.read, transaction)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
            return self._without(transaction, error)
        self._features_trouble.is_over()
        return features

    def _without(self, transaction: Transaction, error: Exception) -> Features:
        if not isinstance(error, CircuitOpenError):
            self._features_trouble.told(error)
        return self._stranger.read(transaction)

    def _ask_for_all(self, seen: list[Features]) -> list[Predicted | Exception]:
        if len(seen) == 1:
            try:
                return [self._ask_alone(seen[0])]
            except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits
                return [error]
        results = answers(self._predict, [features.row[0] for features in seen])
        return [
            result.error if isinstance(result, Failed) else Predicted(result[0], result[1], "model")
            for result in results
        ]

    def _ask_alone(self, features: Features) -> Predicted:
        model = self.holder.current()
        return Predicted(model.fraud(features.row), model.version, "model")

    async def _ask(self, features: Features) -> Predicted:
        if self.cache is not None:
            return await self._look_up(features, self.cache)
        return await self._ask_in_company(features)

    async def _ask_in_company(self, features: Features) -> Predicted:
        if self.batcher is None:
            return self._ask_alone(features)
        probability, version = await self.batcher.predict(features.row[0])
        return Predicted(probability, version, "model")

    async def _look_up(self, features: Features, cache: PredictionCache) -> Predicted:
        is_fresh = False

        async def compute() -> list[float | str]:
            nonlocal is_fresh
            is_fresh = True
            asked = await self._ask_in_company(features)
            return [asked.probability, asked.version]

        # The value names its model too: a reload may come between the key and the computing.
        current = cache.for_version(self.holder.current().version)
        probability, version = await current.aget_or_compute(features.row[0], compute)
        return Predicted(float(probability), str(version), "model" if is_fresh else "cache")


class _Trouble:
    """Tells the log when something begins to fail and when it works again, not each time."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._kind: type[BaseException] | None = None

    def told(self, error: Exception) -> None:
        if self._kind is not type(error):
            self._kind = type(error)
            _LOG.error("%s failed, answering without", self._what, exc_info=error)

    def is_over(self) -> None:
        if self._kind is not None:
            self._kind = None
            _LOG.warning("%s works again", self._what)


def batch_predictor(
    holder: ModelHolder[ServedModel],
) -> Callable[[NDArray[Any]], list[tuple[float, str]]]:
    """What a `MicroBatcher` asks: rows × `FEATURES` to (probability, version) a row."""

    def predict(rows: NDArray[Any]) -> list[tuple[float, str]]:
        model = holder.current()
        return [(as_probability(row[1]), model.version) for row in model.predict_proba(rows)]

    return predict
