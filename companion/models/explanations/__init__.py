"""Why a model says what it says: contributions that add up, pictures of them, and words.

`explain` gives an `Explanation` for the fraud class of any of our models, `Explainer` the same for
many calls; `why_zero` says why one is empty. `waterfall`, `beeswarm`, `bar` and `cohorts` draw it;
`reasons` and `reason_table` put it into words; `what_would_change` looks for the smallest changes
that would turn a decision.
"""

from companion.models.explanations.changes import Change, what_would_change
from companion.models.explanations.errors import (
    AdditivityError,
    BackgroundError,
    ExplanationError,
    FraudClassError,
    InputError,
    PreprocessingError,
    UnitError,
    UnsupportedModelError,
)
from companion.models.explanations.explain import Explainer, explain
from companion.models.explanations.explanation import Explanation, Unit, check_additivity
from companion.models.explanations.fraud_class import fraud_column
from companion.models.explanations.pictures import Drawn, bar, beeswarm, cohorts, waterfall
from companion.models.explanations.words import Reason, reason_table, reasons
from companion.models.explanations.zero import Cause, ZeroReport, why_zero

__all__ = [
    "AdditivityError",
    "BackgroundError",
    "Cause",
    "Change",
    "Drawn",
    "Explainer",
    "Explanation",
    "ExplanationError",
    "FraudClassError",
    "InputError",
    "PreprocessingError",
    "Reason",
    "Unit",
    "UnitError",
    "UnsupportedModelError",
    "ZeroReport",
    "bar",
    "beeswarm",
    "check_additivity",
    "cohorts",
    "explain",
    "fraud_column",
    "reason_table",
    "reasons",
    "waterfall",
    "what_would_change",
    "why_zero",
]
