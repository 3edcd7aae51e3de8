"""Exact percentiles by the nearest-rank definition: always one of the samples.

Interpolating between the two largest samples of a heavy tail invents a latency that nobody had.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def percentile(samples: Sequence[float] | NDArray[np.float64], q: float) -> float:
    """The smallest sample that at least ``q`` percent (0 to 100) of the samples do not exceed.

    Raises:
        ValueError: no samples, or ``q`` out of range.
    """
    if not len(samples):
        raise ValueError("a percentile needs at least one sample")
    if not 0 <= q <= 100:
        raise ValueError(f"q is a percentage from 0 to 100, got {q}")
    return float(np.percentile(np.asarray(samples), q, method="inverted_cdf"))
