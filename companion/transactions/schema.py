"""The columns of a transaction table, their types and units.

One place says what a column is; the simulator fills exactly these, a loader maps onto them, and
features are made of them.
"""

from collections.abc import Iterable, Sequence

import pandas as pd

CATEGORIES = ("groceries", "fuel", "restaurants", "electronics", "travel", "digital")

LEGITIMATE = "legitimate"
FRAUD_SCENARIOS = (
    "card_testing",
    "stolen_card",
    "compromised_merchant",
    "account_takeover",
    "collusion",
)
SCENARIOS = (LEGITIMATE, *FRAUD_SCENARIOS)

COLUMNS: dict[str, str] = {
    "transaction_id": "int64",  # 0, 1, 2 … in order of time
    "time": "datetime64[us, UTC]",
    "customer_id": "int64",
    "merchant_id": "int64",
    "category": "category",  # of the merchant, one of CATEGORIES
    "amount": "float64",  # euros, whole cents
    "distance_km": "float64",  # from the customer's home to where the card was used
    "device_id": "int64",  # the card's chip, a phone, a computer: what presented the card
    "is_online": "bool",  # card not present
    "is_fraud": "bool",  # the truth, which nobody knows at the time
    "scenario": "category",  # how the fraud was done, one of SCENARIOS
    "label_time": "datetime64[us, UTC]",  # when the fraud was reported; NaT: never, or legitimate
}

LABEL = "is_fraud"
IDS = ("transaction_id", "customer_id", "merchant_id")


class MissingColumnsError(ValueError):
    """A transaction table lacks `columns`."""

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__(f"the table of transactions lacks {', '.join(columns)}")
        self.columns = tuple(columns)


def require_columns(transactions: pd.DataFrame, names: Iterable[str]) -> None:
    """Raise `MissingColumnsError` unless the table has all of the columns `names`."""
    missing = [name for name in names if name not in transactions.columns]
    if missing:
        raise MissingColumnsError(missing)
