"""The prediction cache: keyed by model and features, computed once, failing open.

`PredictionCache` is the door, `open_cache_home` chooses where values live.
"""

from companion.resilience.cache.homes import (
    MISSING,
    CacheHome,
    CacheHomeError,
    CacheUnavailableError,
    MemoryHome,
    open_cache_home,
)
from companion.resilience.cache.keys import Features, UnkeyableFeaturesError, canonical_key
from companion.resilience.cache.predictions import CacheCounts, PredictionCache

__all__ = [
    "MISSING",
    "CacheCounts",
    "CacheHome",
    "CacheHomeError",
    "CacheUnavailableError",
    "Features",
    "MemoryHome",
    "PredictionCache",
    "UnkeyableFeaturesError",
    "canonical_key",
    "open_cache_home",
]
