"""Tuning: search spaces that hold the optimum, pruning that saves, studies that survive a kill.

spaces     ranges and scales, and the warning when a best value lies on a boundary
objective  average precision on later rows, stage by stage
sampling   TPE, seeded trial by trial
stores     SQLite and PostgreSQL with heartbeats
workers    one worker of a study, whose budget all workers share
search     `tune`, which puts them together
progress   a bar in a terminal, a line in a notebook
page       one HTML page about a study
surface    a landscape of real networks, on which samplers are compared in seconds
"""

from companion.models.tuning.errors import (
    NoFiniteValueError,
    NothingFinishedError,
    StudyMismatchError,
    TuningError,
)
from companion.models.tuning.objective import STAGES, Objective, Stages, TuningData, build_model
from companion.models.tuning.page import write_page
from companion.models.tuning.progress import Progress, shown_progress
from companion.models.tuning.sampling import SeededTPE, startup_trials
from companion.models.tuning.search import Tuned, tune
from companion.models.tuning.spaces import SPACES, Edge, Range, Space, edges, suggest
from companion.models.tuning.stores import open_storage, quietly
from companion.models.tuning.surface import Surface

__all__ = [
    "SPACES",
    "STAGES",
    "Edge",
    "NoFiniteValueError",
    "NothingFinishedError",
    "Objective",
    "Progress",
    "Range",
    "SeededTPE",
    "Space",
    "Stages",
    "StudyMismatchError",
    "Surface",
    "Tuned",
    "TuningData",
    "TuningError",
    "build_model",
    "edges",
    "open_storage",
    "quietly",
    "shown_progress",
    "startup_trials",
    "suggest",
    "tune",
    "write_page",
]
