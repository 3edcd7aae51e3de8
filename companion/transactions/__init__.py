"""Card transactions: what their columns mean, and a simulator that makes them, fraud included.

`simulate` gives a table with the columns of `COLUMNS`; `feature_matrix` turns it into what a
model sees.
"""

from companion.transactions.schema import (
    CATEGORIES,
    COLUMNS,
    FEATURES,
    IDS,
    LABEL,
    MissingColumnsError,
    feature_matrix,
)
from companion.transactions.simulator import SimulationError, simulate

__all__ = [
    "CATEGORIES",
    "COLUMNS",
    "FEATURES",
    "IDS",
    "LABEL",
    "MissingColumnsError",
    "SimulationError",
    "feature_matrix",
    "simulate",
]
