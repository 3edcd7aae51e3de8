"""Transactions as columns of equal length, before they become a table.

Every part of the simulation makes its events all at once, as NumPy arrays, and the parts are
joined at the end: a million rows cost a few dozen array operations instead of a million steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DAY = 24 * 60  # minutes


@dataclass(frozen=True)
class Events:
    """Columns of `rows` events each, in any order."""

    minute: Floats  # since the first day's midnight
    customer: Ints
    merchant: Ints
    amount: Floats  # euros, not yet rounded
    distance_km: Floats
    device: Ints
    online: Bools

    def __len__(self) -> int:
        return len(self.minute)

    @classmethod
    def joined(cls, parts: Sequence["Events"]) -> "Events":
        """All events of `parts`, one part after the other."""
        columns = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(cls)
        }
        return cls(**columns)
