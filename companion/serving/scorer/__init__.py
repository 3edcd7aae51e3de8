"""The scorer: features, cache, model and costs, and what stands in for each of them."""

from companion.serving.scorer.decisions import USUAL_STAKES, Decision, Stakes
from companion.serving.scorer.features import (
    Features,
    FeatureSource,
    LocalFeatures,
    NoHistory,
    RemoteFeatures,
    StateFeatures,
)
from companion.serving.scorer.model import (
    NoProbabilityError,
    ServedModel,
    hold_artefact,
    hold_file,
    hold_model,
)
from companion.serving.scorer.scorer import Predicted, Scorer, batch_predictor

__all__ = [
    "USUAL_STAKES",
    "Decision",
    "FeatureSource",
    "Features",
    "LocalFeatures",
    "NoHistory",
    "NoProbabilityError",
    "Predicted",
    "RemoteFeatures",
    "Scorer",
    "ServedModel",
    "Stakes",
    "StateFeatures",
    "batch_predictor",
    "hold_artefact",
    "hold_file",
    "hold_model",
]
