"""The columns of a transaction table, their types and units, and the features made of one row.

One place says what a column is; the simulator fills exactly these, a model sees exactly `FEATURES`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

CATEGORIES = ("groceries", "fuel", "restaurants", "electronics", "travel", "digital")

COLUMNS: dict[str, str] = {
    "transaction_id": "int64",  # 0, 1, 2 … in order of time
    "time": "datetime64[us, UTC]",
    "customer_id": "int64",
    "merchant_id": "int64",
    "category": "category",  # of the merchant, one of CATEGORIES
    "amount": "float64",  # euros
    "usual_amount": "float64",  # euros: the customer's own median, known before the transaction
    "distance_km": "float64",  # from the customer's home to where the card was used
    "minutes_since_previous": "float64",  # of the same customer; the whole period for the first one
    "hour": "int64",  # 0–23, UTC
    "is_night": "bool",  # hour < 6
    "is_weekend": "bool",
    "is_online": "bool",  # card not present
    "is_fraud": "bool",  # the label
}

LABEL = "is_fraud"
IDS = ("transaction_id", "customer_id", "merchant_id")

FEATURES: tuple[str, ...] = (
    "log_amount",
    "log_amount_to_usual",
    "log_distance_km",
    "log_minutes_since_previous",
    "hour_sin",
    "hour_cos",
    "is_night",
    "is_weekend",
    "is_online",
)


class MissingColumnsError(ValueError):
    """A transaction table lacks `columns`."""

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__(f"the table of transactions lacks {', '.join(columns)}")
        self.columns = tuple(columns)


def feature_matrix(transactions: pd.DataFrame) -> tuple[pd.DataFrame, "pd.Series[int]"]:
    """What a model sees and what it is to learn: (rows × `FEATURES` as float64, rows as int64 0/1).

    Every feature is made of its own row alone, so nothing leaks from one row into another, and
    the index is kept. Amounts and distances enter as logarithms, since what matters is a factor;
    the hour as a point on a circle, since 23 lies beside 0. Raises `MissingColumnsError`.
    """
    needed = (
        "amount",
        "usual_amount",
        "distance_km",
        "minutes_since_previous",
        "hour",
        "is_night",
        "is_weekend",
        "is_online",
        LABEL,
    )
    missing = [name for name in needed if name not in transactions.columns]
    if missing:
        raise MissingColumnsError(missing)
    angle = 2 * np.pi * transactions["hour"].to_numpy(dtype="float64") / 24
    columns = {
        "log_amount": np.log(transactions["amount"]),
        "log_amount_to_usual": np.log(transactions["amount"] / transactions["usual_amount"]),
        "log_distance_km": np.log1p(transactions["distance_km"]),
        "log_minutes_since_previous": np.log1p(transactions["minutes_since_previous"]),
        "hour_sin": np.sin(angle),
        "hour_cos": np.cos(angle),
        "is_night": transactions["is_night"],
        "is_weekend": transactions["is_weekend"],
        "is_online": transactions["is_online"],
    }
    X = pd.DataFrame(columns, index=transactions.index)[list(FEATURES)].astype("float64")
    return X, transactions[LABEL].astype("int64")
