"""The feature store: a view is defined once, read as of any time offline, and served online.

`FeatureStore` is the door, `FeatureView` the definition; `open_home` chooses where online values
live. The errors say by name what was refused, and why.
"""

from companion.features.store.errors import (
    ClashingColumnsError,
    ConflictingRowsError,
    FeatureStoreError,
    FrameRefusedError,
    InvalidViewError,
    MissingColumnsError,
    MissingKeysError,
    MissingTimesError,
    NaiveTimeError,
    OnlineStoreError,
    OnlineStoreUnavailableError,
    UnknownViewError,
    UnreadableRecordError,
    ViewConflictError,
    WrongDtypeError,
)
from companion.features.store.history import Ingested
from companion.features.store.homes import OnlineHome, open_home
from companion.features.store.store import FeatureStore, Materialized, Served
from companion.features.store.view import FeatureView

__all__ = [
    "ClashingColumnsError",
    "ConflictingRowsError",
    "FeatureStore",
    "FeatureStoreError",
    "FeatureView",
    "FrameRefusedError",
    "Ingested",
    "InvalidViewError",
    "Materialized",
    "MissingColumnsError",
    "MissingKeysError",
    "MissingTimesError",
    "NaiveTimeError",
    "OnlineHome",
    "OnlineStoreError",
    "OnlineStoreUnavailableError",
    "Served",
    "UnknownViewError",
    "UnreadableRecordError",
    "ViewConflictError",
    "WrongDtypeError",
    "open_home",
]
