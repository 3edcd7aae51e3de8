"""What to do with a probability: approve, review or decline, whichever costs least.

A probability is no decision. Letting a transaction go costs its loss times the probability of
fraud; stopping it costs an angry customer times the probability of honesty; having somebody look
costs their time, whatever comes of it. The cheapest of the three in expectation is Chow's rule (*On
optimum recognition error and reject tradeoff*, 1970): decide where you are sure enough, and pay for
a look where you are not. Without the look it is the threshold of `companion.models.costs`.

The same rule answers when there is no model: the base rate is a probability too, if a poor one, and
then the amount alone decides who is looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from companion.models.costs import CostError, Costs
from companion.serving.schemas import Action


class Decision(NamedTuple):
    """What to do, and the probability from which this amount would not have been approved."""

    action: Action
    threshold: float


@dataclass(frozen=True)
class Stakes:
    """What each mistake costs, and what it costs to have a person look (`review`), in euros.

    A review is taken to find the truth. Raises `CostError` for a review that costs nothing or is no
    finite number.
    """

    costs: Costs
    review: float

    def __post_init__(self) -> None:
        if not 0 < self.review < math.inf:
            raise CostError(f"a review costs something above 0, and finite; got {self.review}")

    def decide(self, probability: float, amount: float) -> Decision:
        """The cheapest action for a `probability` of fraud (0–1) and an `amount` in euros.

        Of equally cheap ones, the one that disturbs the customer least.
        """
        costs = self.costs
        loss = costs.missed + costs.missed_share * amount
        false_alarm, review = costs.false_alarm, self.review
        threshold = min(review / loss, false_alarm / (false_alarm + loss)) if loss else 1.0
        if probability <= threshold:
            return Decision("approve", threshold)
        if (1 - probability) * false_alarm < review:
            return Decision("decline", threshold)
        return Decision("review", threshold)


USUAL_STAKES = Stakes(Costs(missed=5.0, false_alarm=15.0, missed_share=1.0), review=4.0)
"""A missed fraud costs its amount and a fee, a wrong refusal some goodwill, a review five minutes.

To be replaced by your own: they decide as much as the model does."""
