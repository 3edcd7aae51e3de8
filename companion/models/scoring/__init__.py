"""Score somebody's file: features, a model that is entitled to judge it, reasons for alerts."""

from companion.models.scoring.basis import UnfitFileError, UnknownFeaturesError
from companion.models.scoring.score import Scored, choose_alerts, score_file
from companion.models.scoring.table import encoded, score_table

__all__ = [
    "Scored",
    "UnfitFileError",
    "UnknownFeaturesError",
    "choose_alerts",
    "encoded",
    "score_file",
    "score_table",
]
