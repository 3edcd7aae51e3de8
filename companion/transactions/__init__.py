"""Card transactions: what their columns mean, and a simulator that makes them, fraud included.

`simulate` gives a table with the columns of `COLUMNS`; `known_fraud` says what of it has been
reported by an instant; `companion.transactions.faults` breaks tables on purpose.
"""

from companion.transactions.reporting import NaiveTimeError, known_fraud
from companion.transactions.schema import (
    CATEGORIES,
    COLUMNS,
    FRAUD_SCENARIOS,
    IDS,
    LABEL,
    LEGITIMATE,
    SCENARIOS,
    MissingColumnsError,
)
from companion.transactions.simulator import SimulationError, simulate

__all__ = [
    "CATEGORIES",
    "COLUMNS",
    "FRAUD_SCENARIOS",
    "IDS",
    "LABEL",
    "LEGITIMATE",
    "SCENARIOS",
    "MissingColumnsError",
    "NaiveTimeError",
    "SimulationError",
    "known_fraud",
    "simulate",
]
