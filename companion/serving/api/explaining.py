"""Why a transaction scores as it does, for the person who has to call the customer.

An explanation of a model that came as ONNX asks it about every mixture of the row with a few
ordinary ones (`companion.models.explanations`): tens of thousands of predictions, some tens of
milliseconds. So it runs in a thread of its own, a few may wait, and more are told to come again:
explanations must not take the core that scores.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.features.defaults import FEATURES
from companion.serving.batching import QueueFullError
from companion.serving.schemas import ExplanationOut, ReasonOut, Transaction
from companion.serving.scorer import Features, Scorer, ServedModel
from companion.serving.scorer.model import as_probability

if TYPE_CHECKING:
    from companion.models.explanations import Explainer

MOST_WAITING = 8
_SECONDS_EACH = 0.1
_REASONS = 4


class NoBackgroundError(ValueError):
    """Nothing to compare with: an explanation needs ordinary rows (rows × features)."""


class Explaining:
    """Explains scores of `scorer`'s model against `background` (rows × `FEATURES`, a few).

    Raises `NoBackgroundError` for a background without rows or of another width.
    """

    def __init__(self, scorer: Scorer, background: NDArray[np.float64]) -> None:
        if background.ndim != 2 or not len(background) or background.shape[1] != len(FEATURES):
            raise NoBackgroundError(f"the background has the shape {background.shape}")
        self._scorer = scorer
        self._background = background
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explaining")
        self._waiting = 0
        self._prepared: _Prepared | None = None

    async def explain(self, transaction: Transaction, request_id: str) -> ExplanationOut:
        """The score and its reasons.

        Raises `QueueFullError` where too many wait, `ModelLoadError` where there is no model, and
        what the model raises: a fallback has no reasons.
        """
        if self._waiting >= MOST_WAITING:
            raise QueueFullError(self._waiting, self._waiting * _SECONDS_EACH)
        features = await self._scorer.features(transaction)
        model = self._scorer.holder.current()
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._thread, self._explained, transaction, features, model, request_id
            )
        finally:
            self._waiting -= 1

    def prepare(self, then: Callable[[], None] = lambda: None) -> None:
        """Begin to load the libraries, which takes seconds that the first caller need not wait.

        `then` is called afterwards, in the same thread.
        """

        def load() -> None:
            import_module("companion.models.explanations")
            then()

        self._thread.submit(load)

    def close(self) -> None:
        """Let the thread end, without waiting for what nobody will read."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _explained(
        self, transaction: Transaction, features: Features, model: ServedModel, request_id: str
    ) -> ExplanationOut:
        from companion.models.explanations import reasons
        from companion.models.explanations.words import effect_in_words

        row = _columns(features.row, model)
        explanation = self._explainer(model)(row)
        probability = as_probability(explanation.probability[0])
        decision = self._scorer.stakes.decide(probability, transaction.amount)
        return ExplanationOut(
            transaction_id=transaction.transaction_id,
            fraud_probability=probability,
            decision=decision.action,
            threshold=decision.threshold,
            model_version=model.version,
            degraded=features.degraded,
            features_age_s=features.age,
            unit=explanation.unit,
            base=float(np.ravel(explanation.base)[0]),
            reasons=[
                ReasonOut(
                    subject=reason.subject,
                    words=reason.words,
                    effect=reason.effect,
                    effect_in_words=effect_in_words(reason.effect, reason.unit),
                )
                for reason in reasons(explanation, top=_REASONS)
            ],
            features=dict(zip(model.features, row.iloc[0].tolist(), strict=True)),
            contributions=dict(zip(model.features, explanation.values[0].tolist(), strict=True)),
            request_id=request_id,
        )

    def _explainer(self, model: ServedModel) -> Explainer:
        """That of `model`, made once for each."""
        if self._prepared is None or self._prepared.model is not model:
            from companion.models.explanations import Explainer

            background = _columns(self._background, model)
            explainer = Explainer(_InItsOwnColumns(model), background=background)
            self._prepared = _Prepared(model, explainer)
        return self._prepared.explainer


@dataclass(frozen=True)
class _Prepared:
    model: ServedModel
    explainer: Explainer


@dataclass(frozen=True)
class _InItsOwnColumns:
    """A served model that looks like scikit-learn's, asked in its own columns and order."""

    served: ServedModel
    classes_: tuple[int, int] = (0, 1)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        return np.asarray(self.served.model.predict_proba(np.asarray(X)), dtype="float64")


def _columns(rows: NDArray[np.float64], model: ServedModel) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(FEATURES))[list(model.features)]
